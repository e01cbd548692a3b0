"""Leaving a run when asked to: SIGTERM, which schedulers send before they take the machine away, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from .. import comm
from ..errors import Interrupted, Terminated, TrainingError

EVERY = 10  # steps, or batches of an evaluation, between the questions whether any of several processes is to leave
ERRORS = {signal.SIGTERM: Terminated, signal.SIGINT: Interrupted}
ENDED = " ended the run "
RANKS = (None, signal.SIGTERM, signal.SIGINT)  # of several processes' answers the last of these counts


class EvaluationLeft(Exception):
    """An evaluation was left before its end, as the run was asked to end."""


class Stop:
    """Whether the run was asked to end. Several processes agree on it, so that they leave after the same step.

    Args:
        otherwise: how a signal ends the run while it is not awaited.

    Attributes:
        asked: the signal that asked.
    """

    def __init__(self, otherwise: str = "before or after its steps, with nothing to save.") -> None:
        self._otherwise = otherwise
        self.asked: signal.Signals | None = None
        self._awaited = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Inside, a signal waits until `requested` is asked after a step; outside it ends the run at once."""
        self._awaited = True
        try:
            yield
        finally:
            self._awaited = False

    def requested(self, step: int) -> bool:
        """Whether to leave after `step` steps; every process must ask at the same steps."""
        if comm.world_size() == 1:
            return self.asked is not None
        if step % EVERY:
            return False
        asked = torch.tensor(RANKS.index(self.asked))
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        self.asked = RANKS[asked]
        return self.asked is not None

    def between(self, batches: Sized) -> StoppableBatches:
        """The batches of an evaluation, until the run is asked to end; every process has its own."""
        return StoppableBatches(batches, self)

    def error(self, when: str) -> TrainingError:
        """What a run ends with that was asked to."""
        return stopped_by(self.asked, when)

    def note(self, number: int, frame: FrameType | None) -> None:
        """What a signal does."""
        if number == self.asked == signal.SIGINT:
            raise stopped_by(signal.SIGINT, "at once, as it came twice; --resume goes on from the last checkpoint.")
        if self.asked is None and not self._awaited:
            raise stopped_by(signal.Signals(number), self._otherwise)
        # A SIGTERM may follow from whoever started the processes, when one of them has left.
        if self.asked != signal.SIGINT:
            self.asked = signal.Signals(number)


class StoppableBatches:
    """Batches that end with `EvaluationLeft` when the run is asked to end: on all processes after equally many."""

    def __init__(self, batches: Sized, stop: Stop) -> None:
        self._batches, self._stop = batches, stop

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        fewest = torch.tensor(len(self))  # a process may have a batch less than another, and cannot be asked then
        if comm.is_distributed():
            dist.all_reduce(fewest, op=dist.ReduceOp.MIN)
        for done, batch in enumerate(self._batches, 1):
            yield batch
            if done <= fewest and self._stop.requested(done):
                raise EvaluationLeft


def stopped_by(number: signal.Signals, when: str) -> TrainingError:
    """The error of a run that a signal ended."""
    return ERRORS[number](f"{number.name}{ENDED}{when}")


@contextmanager
def stop_on_signals(*otherwise: str) -> Iterator[Stop]:
    """A `Stop` that SIGTERM and SIGINT set inside; outside the main thread, where none can be caught, nothing does.

    Args:
        otherwise: of `Stop`.

    Raises:
        TrainingError: inside, at once: at a signal while no steps are made, and at a second Ctrl-C.
    """
    stop = Stop(*otherwise)
    with _handled(stop.note):
        yield stop


@contextmanager
def passed_on(pids: Sequence[int]) -> Iterator[list[signal.Signals]]:
    """Inside, SIGTERM goes to the processes `pids` and not to this one, and SIGINT as SIGTERM: a Ctrl-C reaches them
    from the terminal, too, and would come twice.

    Yields:
        The signals that came.
    """
    came: list[signal.Signals] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:  # it has left already
                continue

    with _handled(pass_on):
        yield came


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ERRORS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
