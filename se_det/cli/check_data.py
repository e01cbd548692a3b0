"""`se-det check-data`: everything that is wrong with a data set, before training."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data.check import Report

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "source", nargs="?", metavar="SRC",
        help="a data set as a labelling tool exported it, in place of --json and --images: all its splits are checked",
    )  # fmt: skip
    parser.add_argument("--json", metavar="J", help="COCO annotations")
    parser.add_argument("--images", metavar="D", help="folder that their file names start from")
    parser.add_argument("--against", metavar="J2", help="another split: its categories must agree, its images differ")
    parser.add_argument("--against-images", metavar="D2", help="its folder of images; default: that of --images")
    parser.add_argument("--output", metavar="FILE", help="write the report there as JSON, with every finding")
    parser.add_argument("--histograms", metavar="PNG", help="draw box sizes and classes there")
    parser.add_argument("--fix", metavar="OUT", help="write a cleaned copy into this new folder, and what it changed")
    parser.add_argument(
        "--absolute-file-names", action="store_true", help="allow file names that are absolute, or climb with '..'"
    )
    parser.add_argument(
        "--uncrowd", action="store_true", help="with --fix: annotations marked iscrowd become plain objects"
    )
    parser.add_argument("--json-only", action="store_true", help="do not open the images")


def run(args: argparse.Namespace) -> int:
    """Check, report, and write what was asked for; 1 when there are errors."""
    from ..errors import ConfigError

    if args.against_images and not args.against:
        raise ConfigError("--against-images goes with --against J2.")
    if args.json_only and (args.fix or args.against):
        raise ConfigError("--json-only opens no image, and --fix and --against need them: leave it out.")
    if args.uncrowd and not args.fix:
        raise ConfigError("--uncrowd goes with --fix OUT: the annotations themselves are never changed.")
    if args.source is None:
        for option, value in (("--json J", args.json), ("--images D", args.images)):
            if value is None:
                raise ConfigError(f"There is nothing to check: give a data set (SRC), or {option} too.")
        return _check_json(args)
    for option, value in (("--json", args.json), ("--images", args.images), ("--against", args.against)):
        if value is not None:
            raise ConfigError(
                f"{args.source} is the data, whose splits are checked against each other, and {option} names other: "
                "give one of them."
            )
    return _check_source(args)


def _check_json(args: argparse.Namespace) -> int:
    """One COCO JSON, and maybe another that it must go with."""
    from ..data.check import check_dataset, compare_splits
    from ..data.check.repair import check_output
    from ..data.check.result_cache import cache_summary
    from ..files import write_json

    if args.fix:
        check_output(Path(args.fix), Path(args.json), Path(args.images))
    report = check_dataset(
        args.json, args.images, decode=not args.json_only, absolute_file_names=args.absolute_file_names
    )
    if not args.json_only:
        cache_summary(report)  # of this set alone
    if args.against:
        other = check_dataset(
            args.against,
            args.against_images or args.images,
            absolute_file_names=args.absolute_file_names,
            progress="images of the other split",
        )
        compare_splits(report, other)
    _print(report)
    if args.output:
        write_json(args.output, report.as_dict(), indent=1)
        logger.info("Wrote %s.", args.output)
    _draw(args.histograms, [report], args.json)
    if args.fix:
        _fix(report, Path(args.fix), args.uncrowd)
    return 1 if report.errors else 0


def _check_source(args: argparse.Namespace) -> int:
    """Every split of a data set in any format, each against those after it."""
    from ..data.check import check_dataset, compare_splits
    from ..data.check.repair import check_output
    from ..data.check.result_cache import cache_summary
    from ..data.check.sources import find_splits
    from ..files import write_json

    data = find_splits(args.source)
    if args.fix:
        check_output(Path(args.fix), data.root)
    reports = {}
    for split in data.splits:
        reports[split.name] = check_dataset(
            split.json_path,
            split.images_folder,
            decode=not args.json_only,
            absolute_file_names=args.absolute_file_names,
            progress=f"images of {split.name}",
            title=split.title,
            sources=split.sources,
        )
        if not args.json_only:
            cache_summary(reports[split.name])
    for one, other in combinations(reports.values(), 2):
        compare_splits(one, other)
    for report in reports.values():
        _print(report)
    if args.output:
        splits = {name: report.as_dict() for name, report in reports.items()}
        write_json(args.output, {"source": str(args.source), "format": data.format, "splits": splits}, indent=1)
        logger.info("Wrote %s.", args.output)
    _draw(args.histograms, list(reports.values()), args.source)
    if args.fix:
        for name, report in reports.items():
            _fix(report, Path(args.fix) / name, args.uncrowd)
    return 1 if any(report.errors for report in reports.values()) else 0


def _print(report: Report) -> None:
    from ..terminal import escape

    print(escape(report.text(), keep="\t\n"))


def _draw(place: str | None, reports: list[Report], title: str) -> None:
    """The histograms of all reports together, where they were asked for."""
    import numpy as np

    from ..files import atomic_write
    from ..plots import plot_histograms

    if place is None:
        return
    counts: Counter[str] = Counter()
    for report in reports:
        for name, count in report.classes:
            counts[name] += count
    classes = list(counts.items()) if len(reports) > 1 else reports[0].classes
    sides = np.concatenate([report.box_sides() for report in reports])
    picture = plot_histograms(sides, classes, title=str(title))
    atomic_write(place, lambda file: file.write(picture))
    logger.info("Wrote %s.", place)


def _fix(report: Report, out: Path, uncrowd: bool) -> None:
    from ..data.check.repair import write_cleaned
    from ..errors import DataError

    copy = write_cleaned(report, out, uncrowd=uncrowd)
    parts = {"images": copy.images, "annotations": copy.annotations, "masks": copy.masks}
    kept = ", ".join(f"{kept} of {total} {name}" for name, (kept, total) in parts.items() if total)
    if not copy.is_usable:
        raise DataError(
            f"{report.title} could not be cleaned: the copy in {out} keeps {kept}. Its changes.json says why each of "
            "the others was left out; correct that in the program that wrote the file."
        )
    logger.info("Wrote a cleaned copy to %s with %s; %d changes are listed in its changes.json.", out, kept,
                len(copy.changes))  # fmt: skip
