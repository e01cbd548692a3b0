"""A collection whose processes are killed at random, one or all, against a run that is left alone.

`pytest -m slow -s tests/inference/collections/test_collection_storm.py` has 20,000 images and 20 kills.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_collection as toy

PROCESSES = 4


class Storm:
    """The processes of a collection, forked from one that has everything imported."""

    def __init__(self, call: tuple[Any, ...], output: Path, part: int) -> None:
        self.call, self.output, self.part = call, output, part
        self.fork = multiprocessing.get_context("forkserver")
        self.fork.set_forkserver_preload(["toy_collection"])
        self.running: dict[int, Any] = {}

    def start(self) -> None:
        """Whoever is not running is started, if only to find nothing left."""
        for share in set(range(PROCESSES)) - self.running.keys():
            job = (*self.call, self.output, (share, PROCESSES), self.part)
            self.running[share] = self.fork.Process(target=toy.detect, args=job)
            self.running[share].start()

    def parts(self) -> int:
        """How many are there."""
        return len(list((self.output / "parts").glob("[0-9]*")))

    def kill(self, shares: list[int]) -> int:
        """SIGKILL; how many of them were still at work."""
        killed = 0
        for share in shares:
            self.running[share].kill()
        for share in shares:
            process = self.running.pop(share)
            process.join(60)
            assert process.exitcode in (0, -9), process.exitcode
            killed += process.exitcode == -9
        return killed

    def finish(self) -> None:
        """Until all have ended by themselves."""
        for process in self.running.values():
            process.join(900)
            assert process.exitcode == 0
        self.running = {}


def storm(tmp_path: Path, *, images: int, shards: int, kills: int, most: int, part: int) -> None:
    each = images // shards
    for number in range(shards):
        bad = each + 3 if number == 1 else None
        toy.shard(tmp_path / f"{number:03d}.tar", range(number * each, (number + 1) * each), bad=bad)
    call = toy.weights(tmp_path / "w.pth"), [str(tmp_path / "*.tar")]
    alone, output = tmp_path / "alone", tmp_path / "storm"
    start = time.perf_counter()
    toy.detect(*call, alone, part=part)
    seconds = time.perf_counter() - start
    random, weather, killed, lives = np.random.default_rng(1), Storm(call, output, part), 0, []
    while killed < kills:
        weather.start()
        wanted, before = int(random.integers(0, most + 1)), weather.parts()
        while weather.parts() < before + wanted:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.05))
        assert not (output / "summary.json").exists(), f"over after {killed} kills: give it more images"
        everyone = random.random() < 0.3
        hit = list(weather.running) if everyone else [int(random.integers(PROCESSES))]
        killed += weather.kill(hit) > 0
        lives.append((wanted, len(hit), weather.parts()))
    weather.start()
    weather.finish()
    for share in range(PROCESSES):  # who ended before another was killed has said nothing of the whole
        assert toy.detect(*call, output, (share, PROCESSES), part=part).counts.images == 0
    expected, found = toy.rows(alone), toy.rows(output)
    assert len(expected) == images - 1 and len({row["image"] for row in found}) == len(found)
    assert found == expected
    for name in ("failures.jsonl", "summary.json"):
        assert (output / name).read_bytes() == (alone / name).read_bytes()
    assert sorted(p.name for p in (output / "parts").iterdir()) == sorted(p.name for p in (alone / "parts").iterdir())
    print(
        f"\n{images} images alone in {seconds:.0f} s; {killed} kills: (parts waited for, processes, parts then) {lives}"
    )


@pytest.mark.slow
def test_killed_five_times(tmp_path: Path) -> None:
    storm(tmp_path, images=800, shards=8, kills=5, most=6, part=10)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path: Path) -> None:
    storm(tmp_path, images=20_000, shards=40, kills=20, most=8, part=100)
