"""`se-det predict`: detections of images and videos as COCO JSON, and drawn."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--config-file", required=True, metavar="F", help="the config the weights were trained with")
    parser.add_argument("--weights", metavar="W", help="a checkpoint; default: MODEL.WEIGHTS of the config")
    parser.add_argument("--output", required=True, metavar="DIR", help="where what is drawn and detections.json go")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, metavar="S", help="draw from this score; default: 0.5"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N images and frames")
    parser.add_argument(
        "inputs",
        nargs="+",
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
    from ..config import load_config
    from ..config.overrides import split_assignments
    from ..errors import ConfigError, DataError
    from ..files import check_writable
    from ..inference import Predictor
    from ..inference.predict_files import RESULTS, predict_files
    from ..inference.sources import find_sources

    if not 0 <= args.score_threshold <= 1:
        raise ConfigError(f"--score-threshold must be between 0 and 1, got {args.score_threshold}.")
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}.")
    output = Path(args.output)
    inputs, overrides = split_assignments(args.inputs)
    if not inputs:
        raise ConfigError("There is nothing to detect in: name images, videos or folders besides the config keys.")
    sources, failures = find_sources(inputs, output, reserved=(RESULTS,))
    if not sources:
        raise DataError(" ".join(failures))
    predictor = Predictor(load_config(args.config_file, overrides), args.weights)
    check_writable(output)
    summary = predict_files(
        predictor, sources, output, score_threshold=args.score_threshold, limit=args.limit
    )  # fmt: skip
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
