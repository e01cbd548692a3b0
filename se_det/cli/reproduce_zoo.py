"""`se-det reproduce-zoo`: the zoo's trained detectors beside the figures that were published of them."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--coco", required=True, metavar="DIR", help="COCO's folder: annotations/ and val2017/")
    parser.add_argument("--weights", metavar="DIR", help="a folder with weight files, besides the cache of downloads")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="entries or patterns ('mask_rcnn_*')")
    parser.add_argument("--download", action="store_true", help="fetch the files that are not on this machine")
    parser.add_argument("--output", default="output/reproduce_zoo", metavar="DIR", help="default: output/reproduce_zoo")
    parser.add_argument(
        "--tolerance", type=float, metavar="AP", help="how far a number may be from the published one; default: 0.15"
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="config keys, such as MODEL.DEVICE=cpu")


def run(args: argparse.Namespace) -> int:
    """Evaluate what is on disk; what was evaluated before is taken from the output folder.

    Returns:
        0; 1 where a number differs by more than the tolerance, or an entry could not be evaluated.

    Raises:
        ConfigError: no file of a chosen entry is there; a name is unknown.
    """
    from ..config.overrides import parse_overrides
    from ..errors import ConfigError
    from ..training.zoo_reproduction import TABLE, TOLERANCE, chosen_entries, find_file, reproduce, table

    tolerance = TOLERANCE if args.tolerance is None else args.tolerance
    if not 0 <= tolerance < 100:
        raise ConfigError(f"--tolerance must be from 0 to 100, got {args.tolerance}.")
    for option, folder in (("--coco", args.coco), ("--weights", args.weights)):
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"{option} {folder} is no folder.")
    words = parse_overrides(args.words)
    weights = Path(args.weights) if args.weights else None
    entries = chosen_entries(args.only)
    lacking = [entry for entry in entries if not args.download and find_file(entry, weights) is None]
    if len(lacking) == len(entries) or (args.only and lacking):
        names = ", ".join(entry.name for entry in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        raise ConfigError(
            f"The files of {len(lacking)} detectors ({names}) are not on this machine: give --download, or put them "
            f"below --weights under their own names, such as {lacking[0].file_name}."
        )
    output = Path(args.output)
    rows = reproduce(
        entries, coco=Path(args.coco), output=output, weights=weights, download=args.download, overrides=words,
        tolerance=tolerance,
    )  # fmt: skip
    print(table(rows, tolerance))
    wrong = [row.name for row in rows if row.failure or row.differs(tolerance)]
    print(
        f"{len(rows)} detectors, {len(rows) - len(wrong)} within {tolerance:g} of what was published"
        f"{f', not so {len(wrong)}: ' + ', '.join(wrong) if wrong else ''}; {len(lacking)} are not on this machine. "
        f"The table is in {output / TABLE}."
    )
    return 1 if wrong else 0
