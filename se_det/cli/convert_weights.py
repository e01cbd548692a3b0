"""`se-det convert-weights`: a weight file of one family becomes one of ours, or of another family."""

from __future__ import annotations

import argparse
import logging

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("source", metavar="IN", help=".pth, .pt, .bin, .tar, .safetensors, .pkl, .npz or .mat")
    parser.add_argument("target", metavar="OUT", help=".safetensors or .pth")
    parser.add_argument("--family", default="", metavar="F", help="family of IN; default: recognised by its keys")
    parser.add_argument("--to", default="se_det", metavar="F", help="family to convert to; default: se_det")
    parser.add_argument(
        "--class-order",
        metavar="FILE",
        help="the order of the classes in a Caffe or MatConvNet file: a synset a line, or mcnSENets' label_map.txt",
    )


def run(args: argparse.Namespace) -> int:
    """Convert.

    Raises:
        WeightsError: a file cannot be read, or not be converted.
        CheckpointError: OUT cannot be written.
    """
    from pathlib import Path

    from ..errors import WeightsError
    from ..weights.conversion import WRITABLE, convert, write_weights

    if Path(args.target).suffix not in WRITABLE:
        raise WeightsError(f"{args.target} has an unknown ending: converted weights are {' or '.join(WRITABLE)}.")
    conversion = convert(args.source, family=args.family, to=args.to, class_order=args.class_order)
    write_weights(args.target, conversion)
    for line in conversion.summary().splitlines():
        logger.info(line)
    needs = ", ".join(f"{name} {value}" for name, value in conversion.facts.plain().items())
    logger.info("%s was written. Its weights need: %s.", args.target, needs or "nothing that is known")
    return 0
