"""Leaving a run when asked to: SIGTERM, which schedulers send before they take the machine away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist

from .. import comm

EVERY = 10  # steps between the questions whether any of several processes was asked to leave


class Stop:
    """Whether the run was asked to end. Several processes agree on it, so that they leave after the same step."""

    def __init__(self) -> None:
        self.asked = False

    def requested(self, step: int) -> bool:
        """Whether to leave after `step` steps; every process must ask at the same steps."""
        if comm.world_size() == 1:
            return self.asked
        if step % EVERY:
            return False
        asked = torch.tensor([int(self.asked)])
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked)


@contextmanager
def stop_on_termination() -> Iterator[Stop]:
    """A `Stop` that SIGTERM sets inside; outside the main thread, where no signal can be caught, nothing does."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def passed_on(number: signal.Signals, pids: Sequence[int]) -> Iterator[None]:
    """The signal goes to the processes `pids` and not to this one, inside."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:  # it has left already
                continue

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, pass_on)
    try:
        yield
    finally:
        signal.signal(number, before)
