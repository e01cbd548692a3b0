"""Benchmarks in this process, of networks and images so small that a part takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from se_det.backbones.catalog import HOSTS
from tests.classification.picture_sets import add_tiny_host, class_folders


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ways are run here, once a turn, in place of in processes of their own, which take seconds to start."""

    def turns(ways, *, repeat, device="cpu"):
        runs = {way: factory(*args) for way, (factory, args) in ways.items()}
        last = {way: [run() for _ in range(repeat)][-1] for way, run in runs.items()}
        return {way: [1.0] * repeat for way in ways}, dict.fromkeys(ways, 1.0), last

    for room in ("backbone", "detector", "gates", "pyramid"):
        monkeypatch.setattr(f"se_det.benchmarks.{room}.time_processes_alternately", turns)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")  # the tests' own process keeps its allocator
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_host() -> Iterator[None]:
    add_tiny_host()
    yield
    HOSTS.pop("tiny", None)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """18 pictures of three classes."""
    return class_folders(tmp_path / "pictures")
