#!/usr/bin/env python
"""The same as `se-det reproduce-zoo`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a checkout that is not installed

from se_det.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("reproduce-zoo", prog="reproduce_zoo.py"))
