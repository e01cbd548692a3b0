"""Batches: who is in one, when it begins, and what becomes of its members."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from se_det.serving.batching import Batcher


class Gate(threading.Event):
    """What each batch waits for; `entered` says that one does."""

    entered = False


def batched(scenario: Callable[..., Awaitable[Any]], *, size: int, wait: float = 0.0) -> list[list[tuple[str, int]]]:
    """The batches that were worked on while `scenario(batcher, gate)` ran; each waits for the gate, which is open.

    A sample is a kind and a number; its result is the number doubled, and a negative number fails.
    """
    batches: list[list[tuple[str, int]]] = []
    gate = Gate()
    gate.set()

    def work(samples: list[tuple[str, int]]) -> list[int]:
        batches.append(samples)
        gate.entered = True
        assert gate.wait(30)
        if any(number < 0 for _, number in samples):
            raise ValueError("negative")
        return [2 * number for _, number in samples]

    async def main() -> None:
        batcher = Batcher(work, kind=lambda sample: sample[0], size=size, wait=wait)
        batcher.start()
        await scenario(batcher, gate)
        await batcher.stop()
        assert not batcher.running

    asyncio.run(main())
    return batches


async def busy(batcher: Batcher, gate: Gate) -> asyncio.Task:
    """A batch of its own that is worked on until the gate opens; others gather meanwhile."""
    gate.clear()
    first = asyncio.ensure_future(batcher(("first", 0)))
    while not gate.entered:
        await asyncio.sleep(0.001)
    return first


def test_those_that_gather_are_batches_of_their_kind_oldest_first() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await busy(batcher, gate)
        samples = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5), ("a", 6)]
        rest = [asyncio.ensure_future(batcher(sample)) for sample in samples]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10, 12]

    assert batched(scenario, size=3) == [
        [("first", 0)], [("a", 1), ("a", 3), ("a", 5)], [("b", 2), ("b", 4)], [("a", 6)],
    ]  # fmt: skip


def test_a_batch_that_is_not_full_waits_for_more() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = asyncio.ensure_future(batcher(("a", 1)))
        await asyncio.sleep(0.05)
        assert await asyncio.gather(first, batcher(("a", 2))) == [2, 4]  # full: it waits no longer

    assert batched(scenario, size=2, wait=60.0) == [[("a", 1), ("a", 2)]]


def test_nobody_waits_longer_than_allowed() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        assert await asyncio.wait_for(batcher(("a", 1)), 30) == 2

    assert batched(scenario, size=2, wait=0.01) == [[("a", 1)]]


def test_the_failure_of_one_is_not_told_to_its_mates() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await busy(batcher, gate)
        rest = [asyncio.ensure_future(batcher(("a", number))) for number in (1, -2, 3)]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
        assert results[:2] == [0, 2] and results[3] == 6
        assert isinstance(results[2], ValueError)
        assert await batcher(("a", 4)) == 8  # and the work goes on

    assert batched(scenario, size=3)[1:] == [
        [("a", 1), ("a", -2), ("a", 3)], [("a", 1)], [("a", -2)], [("a", 3)], [("a", 4)],
    ]  # fmt: skip


def test_no_work_is_done_for_who_has_gone() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = await busy(batcher, gate)
        gone, stays = (asyncio.ensure_future(batcher(("a", number))) for number in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        gate.set()
        assert await asyncio.gather(first, stays) == [0, 4]

    assert batched(scenario, size=1) == [[("first", 0)], [("a", 2)]]


def test_who_waits_at_the_end_is_told() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        await busy(batcher, gate)
        late = asyncio.ensure_future(batcher(("a", 1)))
        await asyncio.sleep(0)
        gate.set()
        await batcher.stop()
        with pytest.raises(asyncio.CancelledError):
            await late

    assert batched(scenario, size=1)[0] == [("first", 0)]
