"""Leaving a run when asked to: SIGTERM, which schedulers send before they take the machine away, and Ctrl-C.

What outlives SIGKILL is elsewhere: files are replaced whole (`files.atomic_write`), the newest readable checkpoint is
resumed (`checkpoint.Checkpointer`), a killed run's remains are cleared (`output_folder`), and no worker is left behind
(`data.worker_loader`). docs/faults.md tells all of it.
"""

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


class EvaluationStopped(Exception):
    """An evaluation was left before its end, as the run was asked to end."""


class _StopNow(BaseException):
    """On its way from the signal's handler to the edge of `stop_on_signals`, which raises `error` in its place.

    It may be raised anywhere, so no `except Exception` is to take it for a failure of what it interrupts: logging would
    print it and go on, and an image that is just being read would pass for a damaged one.
    """

    def __init__(self, error: TrainingError) -> None:
        super().__init__(str(error))
        self.error = error


class StopRequest:
    """Whether the run was asked to end. Several processes agree on it, so that they leave after the same step.

    Args:
        default_message: says how a signal ends the run outside of `deferred`.

    Attributes:
        signal: the signal that was received; None so far.
    """

    def __init__(self, default_message: str = "before or after its steps, with nothing to save.") -> None:
        self._otherwise = default_message
        self.signal: signal.Signals | None = None
        self._deferred = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal waits until `requested` is asked after a step; outside it ends the run at once."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def requested(self, step: int) -> bool:
        """Whether to leave after `step` steps; every process must ask at the same steps."""
        if comm.get_world_size() == 1:
            return self.signal is not None
        if step % EVERY:
            return False
        received = torch.tensor(RANKS.index(self.signal))
        dist.all_reduce(received, op=dist.ReduceOp.MAX)
        self.signal = RANKS[received]
        return self.signal is not None

    def stoppable(self, batches: Sized) -> StoppableBatches:
        """The batches of an evaluation, until the run is asked to end; every process has its own."""
        return StoppableBatches(batches, self)

    def error(self, when: str) -> TrainingError:
        """What a run ends with that was asked to."""
        return stop_error(self.signal, when)

    def immediate_error(self) -> TrainingError:
        """What a run ends with that a signal ended while it was not awaited."""
        return self.error(self._otherwise)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What a signal does."""
        before = self.signal
        # A SIGTERM may follow from whoever started the processes, when one of them has left.
        if before != signal.SIGINT:
            self.signal = signal.Signals(number)
        if number == before == signal.SIGINT:
            raise _StopNow(self.error("at once, as it came twice; --resume goes on from the last checkpoint."))
        # Where even this is swallowed, as in a `__del__`, the next `requested` sees what was asked.
        if before is None and not self._deferred:
            raise _StopNow(self.immediate_error())


class StoppableBatches:
    """Batches that end with `EvaluationStopped` when the run is asked to end: on all processes after equally many."""

    def __init__(self, batches: Sized, stop: StopRequest) -> None:
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
                raise EvaluationStopped


def stop_error(number: signal.Signals, when: str) -> TrainingError:
    """The error of a run that a signal ended."""
    return ERRORS[number](f"{number.name}{ENDED}{when}")


@contextmanager
def stop_on_signals(*default_message: str) -> Iterator[StopRequest]:
    """A `StopRequest` that SIGTERM and SIGINT set inside; outside the main thread, where none can be caught, nothing
    does.

    Args:
        default_message: see `StopRequest`.

    Raises:
        TrainingError: what is inside was left at once: at a signal while no steps are made, or at a second Ctrl-C.
    """
    stop = StopRequest(*default_message)
    try:
        with _handlers(stop.handle):
            yield stop
    except EvaluationStopped:  # of an evaluation outside the awaited steps
        raise stop.immediate_error() from None
    except BaseException as error:
        received = _first_stop(error)
        if received is None:
            raise
        raise received.error from None


def _first_stop(error: BaseException | None) -> _StopNow | None:
    """What first asked to leave, when that is what `error` is or came of: cleaning up may fail, or be interrupted."""
    first = None
    while error is not None:
        first = error if isinstance(error, _StopNow) else first
        error = error.__context__
    return first


@contextmanager
def forward_signals(pids: Sequence[int]) -> Iterator[list[signal.Signals]]:
    """Inside, SIGTERM goes to the processes `pids` and not to this one, and SIGINT as SIGTERM: a Ctrl-C reaches them
    from the terminal, too, and would come twice.

    Yields:
        The signals that came.
    """
    came: list[signal.Signals] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        if os.name == "nt":  # Ctrl-C has come to them as well, and what `kill` does there is no request
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:  # it has left already
                continue

    with _handlers(pass_on):
        yield came


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
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
