"""Workers end with the run they load for, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Batches of more than a pipe holds, so that a worker whose parent is gone waits to hand one over.
SCRIPT = """
import multiprocessing, signal, sys, time
if sys.argv[2] == "macOS":
    del signal.sigtimedwait
import numpy as np, torch
from se_det.data.worker_loader import Loader

class Samples:
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return {"masks": np.zeros(10**6, np.uint8), "image": torch.zeros(8)}

def batches():
    while True:
        yield [1, 2]

for number, batch in enumerate(Loader(Samples(), batches, num_images=8, num_workers=2)):
    if number == 2:
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    if number >= 2 and sys.argv[1] == "fail":
        raise ZeroDivisionError
    if number == 2:
        time.sleep(3)  # until all that may be loaded is
    if number == 40 and sys.argv[1] == "end":
        break
"""


def start(how: str, scratch: Path, system: str = "Linux") -> tuple[subprocess.Popen, list[int]]:
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how, system],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with run.stdout as told:
        return run, [int(pid) for pid in told.readline().split()]


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
@pytest.mark.parametrize("system", ["Linux", "macOS"])
def test_workers_end_with_a_run_that_is_killed(tmp_path: Path, system: str) -> None:
    run, workers = start("sleep", tmp_path, system)
    assert len(workers) == 2
    time.sleep(1)
    run.kill()
    run.wait()
    assert_gone(workers)
    assert not list(tmp_path.glob("pymp-*"))


@pytest.mark.slow
def test_workers_end_with_a_run_that_fails(tmp_path: Path) -> None:
    """The traceback holds the loader until the interpreter, which ends the workers by SIGTERM, has ended."""
    run, workers = start("fail", tmp_path)
    assert run.wait(timeout=60) == 1
    assert_gone(workers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "system"), [(signal.SIGTERM, "Linux"), (signal.SIGINT, "Linux"), (signal.SIGINT, "macOS")]
)
def test_a_signal_to_workers_is_no_news_to_them(tmp_path: Path, number: signal.Signals, system: str) -> None:
    run, workers = start("end", tmp_path, system)
    for pid in workers:
        os.kill(pid, number)
    assert run.wait(timeout=60) == 0
    assert_gone(workers)
    assert not list(tmp_path.glob("pymp-*"))
