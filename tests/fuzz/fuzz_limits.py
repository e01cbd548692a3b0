"""How much is tried, and what one input may cost: the one place to change either."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

FEW = 60
MANY = int(os.environ.get("SE_DET_FUZZ_EXAMPLES", "2200"))
SECONDS = 30  # a slow machine under load included; sound inputs of these sizes take milliseconds
MEBIBYTES = 1024  # by which the process may grow over all inputs together

# A default run tries a few, the same every time; `pytest -m slow tests/fuzz` tries many.
NUMBERS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]

# Of a detector that is fast on a CPU.
TINY = ["MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.DEVICE", "cpu",
        "MODEL.ROI_HEADS.NUM_CLASSES", "3", "INPUT.MIN_SIZE_TEST", "32", "INPUT.MAX_SIZE_TEST", "64",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "2",
        "MODEL.RPN.POST_NMS_TOPK_TEST", "5", "MODEL.RPN.PRE_NMS_TOPK_TEST", "20"]  # fmt: skip


class TooLong(BaseException):
    """An input that is not done with in time. No code that catches exceptions may catch this one."""


def try_many(number: int, inputs: SearchStrategy, attempt: Callable[[Any], None]) -> None:
    """Give `number` inputs to `attempt`, each within the limits, the same ones every time."""
    tried = 0
    logging.disable(logging.WARNING)
    before = peak()

    @settings(
        max_examples=number, derandomize=True, database=None, deadline=None, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(inputs)
    def run(value: Any) -> None:
        nonlocal tried
        tried += 1
        with in_time():
            attempt(value)
        grown = peak() - before
        assert grown < MEBIBYTES, f"the process has grown by {grown:.0f} MiB"

    try:
        run()
    finally:
        logging.disable(logging.NOTSET)
    assert tried >= number


def peak() -> float:
    """The largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def in_time() -> Iterator[None]:
    """Ends what takes longer than SECONDS."""

    def give_up(*_: object) -> None:
        raise TooLong(f"not done in {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file, link and folder below `folder`, with its size and time of change."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            status = os.lstat(path)
            found[path] = (status.st_size, status.st_mtime_ns) if name in files else (0, 0)
    return found
