"""`se-det predict` of a collection: lists, tar shards and URLs, or whatever is named with --format jsonl or parquet."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference import Predictor

FILES = ("coco", "label-studio", "cvat")  # one file of results, and pictures
PARTED = ("jsonl", "parquet")

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of collections."""
    parser.add_argument(
        "--format",
        choices=(*FILES, *PARTED),
        help="coco: one detections.json and drawn images, the default for images, folders and videos; label-studio, "
        "cvat: pre-annotations for these tools in its place; jsonl, parquet: parts with a row an image, for "
        "collections, jsonl being the default for lists, shards and URLs",
    )
    parser.add_argument(
        "--shard", metavar="N/M", help="of a collection do the N-th of M shares (1/64 to 64/64); under torchrun its "
        "processes share what that leaves",
    )  # fmt: skip
    parser.add_argument(
        "--part-images", type=int, metavar="N", help="of a collection: images of a part at most; default: 500"
    )


def is_wanted(args: argparse.Namespace, inputs: Sequence[str]) -> bool:
    """Whether the inputs are a collection.

    Raises:
        ConfigError: they must be one, by kind or by number of processes, and the format is for files.
    """
    from ..errors import ConfigError
    from ..inference.collections.sources import is_collection
    from ..training.torchrun import torchrun_environment

    if args.format in PARTED:
        return True
    environment = torchrun_environment()
    reasons = [text for text in inputs if is_collection(text) and not Path(text).is_dir()]
    reasons += ["--shard"] if args.shard else []
    reasons += ["--part-images"] if args.part_images else []
    reasons += ["torchrun"] if environment is not None and environment.world_size > 1 else []
    if reasons and args.format is not None:
        raise ConfigError(
            f"{reasons[0]} is for collections, whose results are parts: --format {' or '.join(PARTED)}, not "
            f"{args.format}."
        )
    return bool(reasons)


def run(
    args: argparse.Namespace, inputs: Sequence[str], wanted: Sequence[str], predictor_with: Callable[..., Predictor]
) -> int:
    """Do this process's share.

    Args:
        wanted: classes, by name or category id.
        predictor_with: makes the predictor, on the GPU of this one of the machine's processes.

    Raises:
        DataError: where the collection is complete, some of its images could not be read.
    """
    from ..data.class_names import find_classes
    from ..errors import ConfigError, DataError
    from ..inference.collections import predict_collection
    from ..inference.collections.parts import FAILURES
    from ..inference.collections.run import IMAGES_PER_PART

    for option in ("score_threshold", "limit"):
        if getattr(args, option) is not None:
            raise ConfigError(
                f"--{option.replace('_', '-')} is for calls that draw, and a collection is not drawn: leave it out"
                f"{', or set MODEL.ROI_HEADS.SCORE_THRESH_TEST' if option == 'score_threshold' else ''}."
            )
    share, process = _share(args.shard)
    predictor = predictor_with(process)
    summary = predict_collection(
        predictor,
        inputs,
        args.output,
        format=args.format or PARTED[0],
        classes=find_classes(wanted, predictor.class_names, predictor.category_ids) if wanted else None,
        images_per_part=IMAGES_PER_PART if args.part_images is None else args.part_images,
        share=share,
    )
    # Who completes the collection tells of what is missing in it: under torchrun an error would end the others.
    if summary.total and summary.total["failures"]:
        raise DataError(
            f"{summary.total['failures']} of {summary.total['images'] + summary.total['failures']} images could not be "
            f"read: {Path(args.output) / FAILURES} says which and why. All others have their results."
        )
    return 0


def _share(text: str | None) -> tuple[tuple[int, int], int | None]:
    """(this process's number from 0, number of shares), and which of torchrun's processes on this machine it is."""
    from ..errors import ConfigError
    from ..training.torchrun import torchrun_environment

    number, shares = 0, 1
    if text is not None:
        first, _, second = text.partition("/")
        fits = first.isascii() and first.isdigit() and second.isascii() and second.isdigit()
        if not fits or not 1 <= int(first) <= int(second) < 10**6:
            raise ConfigError(
                f"--shard {text} is no share: give 3/64 for the third of 64; they are counted from 1/64 to 64/64."
            )
        number, shares = int(first) - 1, int(second)
    environment = torchrun_environment()
    if environment is None:
        return (number, shares), None
    return (number * environment.world_size + environment.rank, shares * environment.world_size), environment.local_rank
