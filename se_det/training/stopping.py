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


class _Asked(BaseException):
    """On its way from the signal's handler to the edge of `stop_on_signals`, which raises `error` in its place.

    It may be raised anywhere, so no `except Exception` is to take it for a failure of what it interrupts: logging would
    print it and go on, and an image that is just being read would pass for a damaged one.
    """

    def __init__(self, error: TrainingError) -> None:
        super().__init__(str(error))
        self.error = error


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

    def at_once(self) -> TrainingError:
        """What a run ends with that a signal ended while it was not awaited."""
        return self.error(self._otherwise)

    def note(self, number: int, frame: FrameType | None) -> None:
        """What a signal does."""
        before = self.asked
        # A SIGTERM may follow from whoever started the processes, when one of them has left.
        if before != signal.SIGINT:
            self.asked = signal.Signals(number)
        if number == before == signal.SIGINT:
            raise _Asked(self.error("at once, as it came twice; --resume goes on from the last checkpoint."))
        # Where even this is swallowed, as in a `__del__`, the next `requested` sees what was asked.
        if before is None and not self._awaited:
            raise _Asked(self.at_once())


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
        TrainingError: what is inside was left at once: at a signal while no steps are made, or at a second Ctrl-C.
    """
    stop = Stop(*otherwise)
    try:
        with _handled(stop.note):
            yield stop
    except EvaluationLeft:  # of an evaluation outside the awaited steps
        raise stop.at_once() from None
    except BaseException as error:
        asked = _first_asked(error)
        if asked is None:
            raise
        raise asked.error from None


def _first_asked(error: BaseException | None) -> _Asked | None:
    """What first asked to leave, when that is what `error` is or came of: cleaning up may fail, or be interrupted."""
    first = None
    while error is not None:
        first = error if isinstance(error, _Asked) else first
        error = error.__context__
    return first


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
    before = {number: signal.getsignal(number) for number in ERRORS}
    try:
        for number in ERRORS:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
