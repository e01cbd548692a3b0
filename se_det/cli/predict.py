"""`se-det predict`: detections of images and videos as COCO JSON, and drawn."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference import Predictor

MAX_NAMED = 10  # classes in a line of the log

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "--config-file", metavar="F", help="the config the weights were trained with; default: the one they carry"
    )
    parser.add_argument("--weights", metavar="W", help="a checkpoint; default: MODEL.WEIGHTS of the config")
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
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N images and frames")
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="images, videos, folders of them, patterns "
        "('photos/**/*.jpg'); and KEY=VALUE for config keys, such as TEST.PRECISION=bfloat16",
    )


def run(args: argparse.Namespace) -> int:
    """Detect in every input.

    Raises:
        DataError: there is nothing to detect in; or at the end, when some inputs could not be read.
        Terminated, Interrupted: SIGTERM or Ctrl-C came; files that were whole are kept, all others removed.
    """
    from ..training.preemption import stop_on_signals

    with stop_on_signals("early: what was drawn until then is kept, its detections are not."):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ..config.overrides import split_assignments
    from ..data.class_names import find_classes
    from ..errors import ConfigError, DataError
    from ..files import check_writable
    from ..inference.predict_files import RESULTS, predict_files
    from ..inference.sources import find_sources

    if args.score_threshold is not None and not 0 <= args.score_threshold <= 1:
        raise ConfigError(f"--score-threshold must be between 0 and 1, got {args.score_threshold}.")
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}.")
    output = Path(args.output)
    inputs, overrides = split_assignments(args.inputs)
    wanted, more = split_assignments(args.classes or ())
    overrides += more
    if args.classes and not wanted:
        raise ConfigError(f"--classes is followed by no class, but by {' '.join(args.classes)}.")
    if not inputs:
        taken = f" All of '{' '.join(wanted)}' was taken for classes: name inputs first." if wanted else ""
        raise ConfigError(
            f"There is nothing to detect in: name images, videos or folders besides the config keys.{taken}"
        )
    sources, failures = find_sources(inputs, output, reserved=(RESULTS,))
    if not sources:
        raise DataError(" ".join(failures))
    predictor = open_predictor(args.config_file, args.weights, overrides)
    classes = find_classes(wanted, predictor.class_names, predictor.category_ids) if wanted else None
    check_writable(output)
    if args.score_threshold is None:
        logger.info(_drawn_from(predictor, classes))
    summary = predict_files(
        predictor, sources, output, score_threshold=args.score_threshold, classes=classes, limit=args.limit
    )
    failures += summary.failures
    logger.info(
        "%d detections in %d images and frames: %s, and what was drawn beside it.",
        summary.detections, summary.images, output / RESULTS,
    )  # fmt: skip
    for source in sources:
        if source.target.stem != source.path.stem:
            logger.info("%s is drawn to %s, as the name was taken.", source.path, output / source.target)
    if failures:
        raise DataError(
            f"{len(failures)} input{'s' if len(failures) > 1 else ''} could not be read. {' '.join(failures)}"
        )
    return 0


def open_predictor(config_file: str | None, weights: str | None, overrides: Sequence[str]) -> Predictor:
    from ..config import load_config
    from ..errors import ConfigError
    from ..inference import Predictor
    from ..weights import config_of_checkpoint

    if config_file:
        return Predictor(load_config(config_file, overrides), weights)
    weights = weights or dict(zip(overrides[::2], overrides[1::2])).get("MODEL.WEIGHTS")
    if not weights:
        raise ConfigError("No weights were given: give --weights W, a checkpoint of a training, or --config-file F.")
    return Predictor(config_of_checkpoint(weights, overrides, data=False), weights)


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
        "Each class is drawn from its score of best F1 on the validation data, which the checkpoint keeps: "
        f"{listed}{more}{others}. --score-threshold sets one for all."
    )
