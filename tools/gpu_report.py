#!/usr/bin/env python
"""Test and measure a GPU within some minutes: tools/README.md says how, and how to carry what that needs."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a checkout that is not installed

from se_det.benchmarks.gpu_report import Task, make_report, run_part
from se_det.benchmarks.gpu_report_parts import PARTS, find_data
from se_det.benchmarks.timing import machine
from se_det.errors import SeDetError


def main() -> int:
    """0: every part was done; 1: one was not, and the report says why."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8, metavar="M", help="for all of it; default: 8")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results.jsonl and report.md go there")
    parser.add_argument("--device", default="cuda", metavar="D", help="default: cuda; cpu only shows that it works")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a COCO folder; default: drawn shapes")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        if args.part:
            data = find_data(args.data, args.out) if args.part != "tests" else None
            return run_part(args.part, PARTS[args.part], Task(args.device, args.out, data, args.seconds))
        where = {**machine(args.device), "command": " ".join(["tools/gpu_report.py", *sys.argv[1:]])}
        command = [sys.executable, __file__, "--out", str(args.out), "--device", args.device,
                   *(["--data", str(args.data)] if args.data else []), "--part"]  # fmt: skip
        chosen = {name: PARTS[name] for name in args.parts}
        return 0 if make_report(chosen, command, minutes=args.minutes, out=args.out, where=where) else 1
    except (SeDetError, RuntimeError, AssertionError) as error:  # PyTorch's, where there is no such device
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
