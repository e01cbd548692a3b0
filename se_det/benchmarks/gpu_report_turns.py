"""How large and how often the report of a GPU does things, and ways taking turns in one process.

Starting a process for each way would take a third of the time there is. A way's peak memory is the most that was taken
while it alone was made and run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from ..device import wait_for
from .gpu_report import Record
from .timing import Comparison, time_alternately

TURN = 0.3  # seconds that a turn should last at least, of as many calls as that takes
Run = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """How large everything is, and how often it is done."""

    host: str
    maps: tuple[int, int]
    inference: tuple[int, ...]
    training: int
    classifier: tuple[int, int]
    config: str
    batch: int
    image: tuple[int, int]
    repeat: int
    loaded: int
    tests: tuple[str, ...]


GPU = Sizes(
    host="resnet50", maps=(800, 1088), inference=(1, 8), training=8, classifier=(256, 224), config="r50", batch=16,
    image=(800, 1333), repeat=5, loaded=200, tests=(),
)  # fmt: skip
# What shows on a CPU that the report itself works; its figures mean nothing.
CPU = Sizes(
    host="resnet18", maps=(64, 96), inference=(1, 2), training=2, classifier=(4, 64), config="r18", batch=2,
    image=(96, 128), repeat=1, loaded=4, tests=("-k", "areas or sampling or overflow or matching"),
)  # fmt: skip


def sizes_for(device: str) -> Sizes:
    """Large ones for GPUs."""
    return CPU if device == "cpu" else GPU


def compare(
    title: str, ways: Mapping[str, Callable[[], Run]], *, device: str, repeat: int, amount: float, baseline: str
) -> Iterator[Record]:
    """Seconds of each way's call, and its memory; a way that fails is told of, and the others go on without it.

    Args:
        ways: each makes what is then called again and again.
        amount: images of a call.
    """
    where, runs, peaks, calls = torch.device(device), {}, {}, {}
    for way, make in ways.items():
        try:
            before = _held(where)
            run = make()
            for _ in range(1 if where.type == "cpu" else 3):  # what is chosen or made in the first calls
                run()
            wait_for(where)
            start = time.perf_counter()
            _forget_peak(where)
            run()
            wait_for(where)
            taken = time.perf_counter() - start
            calls[way] = 1 if where.type == "cpu" else max(1, min(50, round(TURN / taken)))
            if where.type == "cuda":
                peaks[way] = (torch.cuda.max_memory_allocated(where) - before) / 2**20
            runs[way] = run
        except Exception as error:
            yield {"measured": title, "way": way, "error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    if not runs:
        return
    turns = {way: _repeated(run, calls[way]) for way, run in runs.items()}
    seconds = time_alternately(turns, repeat=repeat, device=where)
    each = {way: [taken / calls[way] for taken in values] for way, values in seconds.items()}
    first = baseline if baseline in each else next(iter(each))
    yield from Comparison(title, each, first, peaks, amount=amount).rows()


def _repeated(run: Run, count: int) -> Run:
    def turn() -> None:
        for _ in range(count):
            run()

    return turn


def _held(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
