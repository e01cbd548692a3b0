"""Two processes against one: the same weights and the same validation numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from picture_sets import add_tiny_host
from tiny_pretraining import tiny_pretraining

from se_det.training.checkpoint import load_checkpoint
from se_det.training.launch import free_port, spawn

ROOT = Path(__file__).resolve().parents[2]
# Group norm, as batch norm's statistics are each process's own (SyncBN, whose are not, works on GPUs only); no mixing
# of images, whose partners and shares each process draws for its own part of the batch.
KEYS = (
    "MODEL.RESNETS.NORM", "GN", "INPUT.MIXUP", 0.0, "INPUT.CUTMIX", 0.0, "SOLVER.MAX_ITER", 6,
    "SOLVER.IMS_PER_BATCH", 6, "SOLVER.CHECKPOINT_PERIOD", 3, "TEST.EVAL_PERIOD", 3,
)  # fmt: skip


def results(folder: Path) -> dict:
    return json.loads((folder / "inference" / "metrics.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("quick_start")
def test_two_processes_are_one(pictures: Path, tmp_path: Path) -> None:
    add_tiny_host()
    one, two = tmp_path / "one", tmp_path / "two"
    tiny_pretraining(pictures, one, *KEYS, "SOLVER.ACCUMULATE", 1)
    spawn(tiny_pretraining, (pictures, two, *KEYS, "SOLVER.ACCUMULATE", 1), processes=2,
          url=f"tcp://127.0.0.1:{free_port()}")  # fmt: skip
    for name in ("model_final.pth", "model_best.pth"):
        a, b = load_checkpoint(one / name), load_checkpoint(two / name)
        for part in ("model", "ema"):
            for key in a[part]:
                torch.testing.assert_close(a[part][key], b[part][key], rtol=0, atol=1e-5)
        assert a["iteration"] == b["iteration"]
    a, b = results(one), results(two)
    assert (
        a["classification"]["images"] == b["classification"]["images"] == 9
    )  # five of them in one process, four in the other
    assert a["classification"].pop("loss") == pytest.approx(b["classification"].pop("loss"), abs=1e-5)
    assert a == b


@pytest.mark.slow
def test_torchrun_and_sigterm_to_one_of_two(pictures: Path, tmp_path: Path) -> None:
    """SIGTERM to one process makes both save and leave after the same step; what goes on ends as one run."""
    script = str(Path(__file__).with_name("tiny_pretraining.py"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [str(word) for word in (*KEYS, "SOLVER.ACCUMULATE", 1, "SOLVER.MAX_ITER", 4000)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    run = subprocess.Popen([*torchrun, str(pictures), str(tmp_path), *words, "SOLVER.CHECKPOINT_PERIOD", "5000",
                            "TEST.EVAL_PERIOD", "5000"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True)  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "metrics.json").exists() or not (tmp_path / "metrics.json").read_text():
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.2)
        children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(children[-1]), signal.SIGTERM)
        told = run.communicate(timeout=120)[0]
    finally:
        run.kill()
    assert "SIGTERM ended the run after" in told
    saved = list(tmp_path.glob("model_*.pth"))
    assert len(saved) == 1
    assert load_checkpoint(saved[0])["iteration"] % 10 == 0
