"""`se-det check-data`: everything that is wrong with a data set, before training."""

from __future__ import annotations

import argparse
import logging

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", required=True, metavar="J", help="COCO annotations")
    parser.add_argument("--images", required=True, metavar="D", help="folder that their file names start from")
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
    from pathlib import Path

    from ..data.check import check_dataset, compare_splits
    from ..data.check.repair import check_output, write_cleaned
    from ..data.check.result_cache import cache_summary
    from ..errors import ConfigError, DataError
    from ..files import atomic_write, write_json
    from ..plots import plot_histograms
    from ..terminal import escape

    if args.against_images and not args.against:
        raise ConfigError("--against-images goes with --against J2.")
    if args.json_only and (args.fix or args.against):
        raise ConfigError("--json-only opens no image, and --fix and --against need them: leave it out.")
    if args.uncrowd and not args.fix:
        raise ConfigError("--uncrowd goes with --fix OUT: the annotations themselves are never changed.")
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
            title="images of the other split",
        )
        compare_splits(report, other)
    print(escape(report.text(), keep="\t\n"))
    if args.output:
        write_json(args.output, report.as_dict(), indent=1)
        logger.info("Wrote %s.", args.output)
    if args.histograms:
        picture = plot_histograms(report.box_sides(), report.classes, title=str(args.json))
        atomic_write(args.histograms, lambda file: file.write(picture))
        logger.info("Wrote %s.", args.histograms)
    if args.fix:
        copy = write_cleaned(report, Path(args.fix), uncrowd=args.uncrowd)
        parts = {"images": copy.images, "annotations": copy.annotations, "masks": copy.masks}
        kept = ", ".join(f"{kept} of {total} {name}" for name, (kept, total) in parts.items() if total)
        if not copy.is_usable:
            raise DataError(
                f"{args.json} could not be cleaned: the copy in {args.fix} keeps {kept}. Its changes.json says why "
                "each of the others was left out; correct that in the program that wrote the file."
            )
        logger.info("Wrote a cleaned copy to %s with %s; %d changes are listed in its changes.json.", args.fix, kept,
                    len(copy.changes))  # fmt: skip
    return 1 if report.errors else 0
