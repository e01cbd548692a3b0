"""Which device the tests of this folder run on: see README.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from .comparing import full_float32

STAND_IN = "SE_DET_GPU_TESTS"  # "cpu": the CPU in the GPU's place


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or what stands in for it."""
    if os.environ.get(STAND_IN) == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip(f"needs a CUDA device ({STAND_IN}=cpu runs it on the CPU)")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(autouse=True)
def without_tf32(device: torch.device) -> Iterator[None]:
    """Float32 is float32 in these tests, but where they ask for TF32."""
    with full_float32():
        yield
