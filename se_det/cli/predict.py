"""`se-det predict`: detections of images and videos as COCO JSON, and drawn; of collections in parts."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import predict_collection as collection

if TYPE_CHECKING:
    from ..inference import Predictor

MAX_NAMED = 10  # classes in a line of the log

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "--config-file", metavar="F", help="the config the weights were trained with; default: the one they carry"
    )
    parser.add_argument("--weights", metavar="W", help="a checkpoint, or an exported detector "
                        "(.onnx, .xml, .pt2, .engine); default: MODEL.WEIGHTS of the config")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="where what is drawn and detections.json go")
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="draw from this score; default: each class from its score of best F1, if the checkpoint has one, or 0.5",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="C",
        help="draw and write these classes alone: names or category ids; the inputs come before it",
    )
    collection.add_arguments(parser)
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PX",
        help="detect in windows of so many px (TEST.TILE.SIZE): small objects in large images; 0: in whole images",
    )
    parser.add_argument(
        "--overlap", type=float, metavar="SHARE", help="of a window that its neighbour shows, too; default: 0.2"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N images and frames")
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="images, videos, folders of them, patterns ('photos/**/*.jpg'); lists (.txt, .csv, .jsonl), tar shards "
        "and URLs (s3://, gs://, https://) of images; and KEY=VALUE for config keys, such as TEST.PRECISION=bfloat16",
    )


def run(args: argparse.Namespace) -> int:
    """Detect in every input.

    Raises:
        DataError: there is nothing to detect in; or at the end, when some inputs could not be read.
        CheckpointError: the output folder has the results of another collection, or cannot be written.
        Terminated, Interrupted: SIGTERM or Ctrl-C came; files that were whole are kept, all others removed.
    """
    from ..config.overrides import split_assignments
    from ..errors import ConfigError
    from ..training.preemption import stop_on_signals

    if args.score_threshold is not None and not 0 <= args.score_threshold <= 1:
        raise ConfigError(f"--score-threshold must be between 0 and 1, got {args.score_threshold}.")
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}.")
    inputs, overrides = split_assignments(args.inputs)
    wanted, more = split_assignments(args.classes or ())
    overrides += more
    for key, value in (("SIZE", args.tile), ("OVERLAP", args.overlap)):
        if value is not None:
            overrides += [f"TEST.TILE.{key}", str(value)]
    if args.classes and not wanted:
        raise ConfigError(f"--classes is followed by no class, but by {' '.join(args.classes)}.")
    if not inputs:
        taken = f" All of '{' '.join(wanted)}' was taken for classes: name inputs first." if wanted else ""
        raise ConfigError(
            f"There is nothing to detect in: name images, videos or folders besides the config keys.{taken}"
        )
    if collection.is_wanted(args, inputs):
        said = "early: parts that were whole are kept, and the same call goes on after them."
        do = collection.run
    else:
        said = "early: what was drawn until then is kept, its detections are not."
        do = _run
    with stop_on_signals(said):
        return do(args, inputs, wanted, partial(open_predictor, args.config_file, args.weights, overrides))


def _run(
    args: argparse.Namespace, inputs: Sequence[str], wanted: Sequence[str], predictor_with: Callable[..., Predictor]
) -> int:
    from ..data.class_names import find_classes
    from ..errors import DataError
    from ..files import check_writable
    from ..inference.predict_files import predict_files
    from ..inference.result_files import FORMATS
    from ..inference.sources import find_sources

    output = Path(args.output)
    written = FORMATS[args.format or "coco"].names
    sources, failures = find_sources(inputs, output, reserved=written)
    if not sources:
        raise DataError(" ".join(failures))
    predictor = predictor_with()
    classes = find_classes(wanted, predictor.class_names, predictor.category_ids) if wanted else None
    check_writable(output)
    if args.score_threshold is None:
        logger.info(_drawn_from(predictor, classes))
    summary = predict_files(
        predictor, sources, output, score_threshold=args.score_threshold, classes=classes, limit=args.limit,
        format=args.format or "coco",
    )  # fmt: skip
    failures += summary.failures
    logger.info(
        "%d detections in %d images and frames: %s, and what was drawn beside it.",
        summary.detections, summary.images, output / written[0],
    )  # fmt: skip
    for source in sources:
        if source.target.stem != source.path.stem:
            logger.info("%s is drawn to %s, as the name was taken.", source.path, output / source.target)
    if failures:
        raise DataError(
            f"{len(failures)} input{'s' if len(failures) > 1 else ''} could not be read. {' '.join(failures)}"
        )
    return 0


def open_predictor(
    config_file: str | None, weights: str | None, overrides: Sequence[str], process: int | None = None
) -> Predictor:
    """The detector, on a GPU that is `process`'s own of this machine's processes where these share the GPUs."""
    from ..config import load_config
    from ..device import count_devices
    from ..errors import ConfigError
    from ..inference import Predictor
    from ..inference.exported import config_of_exported
    from ..inference.runtimes import is_exported
    from ..weights import config_of_checkpoint

    if config_file:
        cfg = load_config(config_file, overrides)
    else:
        weights = weights or dict(zip(overrides[::2], overrides[1::2])).get("MODEL.WEIGHTS")
        if not weights:
            raise ConfigError(
                "No weights were given: give --weights W, a checkpoint of a training, or --config-file F."
            )
        if is_exported(weights):
            cfg = config_of_exported(weights, overrides)
        else:
            cfg = config_of_checkpoint(weights, overrides, data=False)
    count = count_devices(cfg.MODEL.DEVICE)
    if process is not None and count > 1 and ":" not in cfg.MODEL.DEVICE:
        cfg.MODEL.DEVICE = f"{cfg.MODEL.DEVICE}:{process % count}"
    return Predictor(cfg, weights)


def _drawn_from(predictor: Predictor, classes: Sequence[int] | None) -> str:
    """A sentence about the scores from which detections are drawn."""
    from ..inference.result import DEFAULT_THRESHOLD

    shown = range(len(predictor.class_names)) if classes is None else classes
    known = [k for k in shown if predictor.thresholds[k] is not None]
    if not known:
        return f"Drawn is what scores {DEFAULT_THRESHOLD:g} and more (--score-threshold)."
    listed = ", ".join(f"{predictor.class_names[k]} {predictor.thresholds[k]:.2f}" for k in known[:MAX_NAMED])
    more = f", and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
    others = f"; the other classes from {DEFAULT_THRESHOLD:g}" if len(known) < len(shown) else ""
    return (
        "Each class is drawn from its score of best F1 on the validation data, which the model's file keeps: "
        f"{listed}{more}{others}. --score-threshold sets one for all."
    )
