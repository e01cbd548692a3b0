"""Dynamic batching: what many callers ask for one by one is done in one thread, several of a kind at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")
R = TypeVar("R")


@dataclass(eq=False)
class _Job(Generic[S, R]):
    sample: S
    kind: Hashable
    arrived: float  # s, of the monotonic clock
    result: asyncio.Future[R]


class Batcher(Generic[S, R]):
    """`await batcher(sample)` gives what `work` makes of a sample in a batch of its kind.

    The one that has waited longest is next, with others of its kind; while they are fewer than `size` it waits for
    more, but no longer than `wait`. While a batch is worked on, those that arrive gather. The work is done in one
    thread of its own, so the event loop goes on meanwhile. A sample whose caller has gone is left out. When a batch
    fails, its samples are tried one by one, so that a caller is not told of another's failure.

    Args:
        work: samples to results, one for each; called in the thread.
        kind: of a sample; a batch has samples of one.
        size: samples of a batch at most.
        wait: seconds.
        report: called with each batch's number of samples and the seconds it took.
    """

    def __init__(
        self,
        work: Callable[[list[S]], list[R]],
        *,
        kind: Callable[[S], Hashable],
        size: int,
        wait: float,
        report: Callable[[int, float], None] = lambda count, seconds: None,
    ) -> None:
        self._work, self._kind, self._size, self._wait, self._report = work, kind, size, wait, report
        self._waiting: list[_Job[S, R]] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def running(self) -> bool:
        """Whether samples are worked on."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """End; who still waits is told that its work was cancelled."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for job in self._waiting:
            job.result.cancel()
        self._thread.shutdown()

    async def __call__(self, sample: S) -> R:
        """The result of a sample.

        Raises:
            Exception: what `work` raised of this sample alone.
        """
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(sample, self._kind(sample), time.monotonic(), result))
        self._arrived.set()
        return await result

    async def _run(self) -> None:
        while True:
            batch = await self._next_batch()
            began = time.monotonic()
            samples = [job.sample for job in batch]
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._work_on, samples)
            self._report(len(batch), time.monotonic() - began)
            for job, outcome in zip(batch, outcomes):
                if job.result.done():  # its caller has gone
                    continue
                if isinstance(outcome, Exception):
                    job.result.set_exception(outcome)
                else:
                    job.result.set_result(outcome)

    async def _next_batch(self) -> list[_Job[S, R]]:
        while True:
            self._waiting = [job for job in self._waiting if not job.result.done()]
            self._arrived.clear()
            left = None
            if self._waiting:
                first = self._waiting[0]
                batch = [job for job in self._waiting if job.kind == first.kind][: self._size]
                left = first.arrived + self._wait - time.monotonic()
                if len(batch) == self._size or left <= 0:
                    self._waiting = [job for job in self._waiting if job not in batch]
                    return batch
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def _work_on(self, samples: list[S]) -> list[R | Exception]:
        try:
            return list(self._work(samples))
        except Exception as error:
            return [error] if len(samples) == 1 else [self._work_on([sample])[0] for sample in samples]
