"""Fixtures that several rooms share, and what each of several test processes may take of the machine."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing

SHARED_DATA = Path(os.environ.get("SE_DET_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several on one machine: a thread each, and each that they start
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real sample data beside the checkout; tests that need it are skipped where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the sample data in {SHARED_DATA} (or SE_DET_SHARED_DATA)")
    return SHARED_DATA


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that `spawn` starts have PyTorch imported already, which is most of the time they take.

    Nothing is inherited from this process, as in those that are spawned; `tests/training/test_processes.py` has runs
    that are. Elsewhere than on Linux and macOS they are spawned here, too.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    multiprocessing.set_forkserver_preload(["torch", "se_det.training.run", "se_det.classification.run", "pytest"])
    plain = torch.multiprocessing.start_processes

    def start_processes(*args, **kwargs):
        return plain(*args, **{**kwargs, "start_method": "forkserver"})

    monkeypatch.setattr("se_det.training.launch.mp.start_processes", start_processes)
