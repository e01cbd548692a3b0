"""`se-det import`: a data set as a labelling tool exported it, written as COCO."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "source", metavar="SRC", help="the folder of the data set, or one of its annotation files (its format is found)"
    )
    parser.add_argument("out", metavar="OUT", help="a new folder for the COCO JSON of each split")
    parser.add_argument(
        "--images",
        choices=("reference", "link", "copy"),
        default="reference",
        help="leave the images where they are (default), hard-link them into OUT, or copy them",
    )


def run(args: argparse.Namespace) -> int:
    """Import, and say what was read and where it is."""
    from ..data.formats.writing import import_data

    data = import_data(args.source, args.out, images=args.images)
    lines = [data.summary()]
    lines += [
        f"  {name}: --json {split.json_path} --images {split.images_folder}" for name, split in data.splits.items()
    ]
    # Names from a data set may hold what a terminal cannot show.
    encoding = sys.stdout.encoding or "utf-8"
    print("\n".join(lines).encode(encoding, "backslashreplace").decode(encoding))
    return 0
