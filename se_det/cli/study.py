"""`se-det study`: train a grid of runs and compare them."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("study", metavar="STUDY", help="a YAML file, or the name of a shipped study")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config keys of all runs")
    parser.add_argument("--output", metavar="DIR", help="the study's folder; default: output/studies/<its name>")
    parser.add_argument("--report", action="store_true", help="write the report of what is done, and stop")


def run(args: argparse.Namespace) -> int:
    """Make the runs that are not done, and write the report; 1 where one failed."""
    from ..config.overrides import parse_overrides
    from ..study import read_study, run_study
    from ..study.report import write_study_report

    study = read_study(args.study, parse_overrides(args.overrides))
    output = Path(args.output or f"output/studies/{Path(args.study).stem}")
    failed = {} if args.report else run_study(study, output)
    write_study_report(study, output, failed)
    return 1 if failed else 0
