"""A run that is killed thirty times against one that is not: the same weights, and nothing is ever lost or left.

`pytest -m slow -s tests/training/test_storm.py` prints where the kills fell.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_detector import draw, train_and_evaluate

from se_det.training.checkpoint import Checkpointer, load_checkpoint

KILLS = 30
LONGEST = 4.0  # seconds that a life may last
# A network whose checkpoint is 3 MB and whose step takes a fifth of a second.
KEYS = ["MODEL.RESNETS.RES2_OUT_CHANNELS", 8, "MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.NORM", "BN",
        "MODEL.GATE.REDUCTION", 4, "MODEL.FPN.OUT_CHANNELS", 16, "SOLVER.EMA.DECAY", 0.9,
        "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 15, "DATALOADER.NUM_WORKERS", 2]  # fmt: skip


def life(folder: str, *keys: Any, **how: Any) -> None:
    """The run, whose workers are forked from it as always."""
    multiprocessing.set_start_method("fork", force=True)
    train_and_evaluate(folder, *keys, **how)


class Storm:
    """Starts the run again and again, as a process that is forked from one with everything imported."""

    def __init__(self, folder: Path, keys: list[Any]) -> None:
        self.folder, self.keys = folder, keys
        self.fork = multiprocessing.get_context("forkserver")
        self.fork.set_forkserver_preload([__name__, "torch.utils.tensorboard"])
        self.random = np.random.default_rng(0)
        self.pids: set[int] = set()
        self.read: set[tuple[Path, int]] = set()
        self.fell: Counter[str] = Counter()

    def start(self, *keys: Any, **how: Any) -> Any:
        run = self.fork.Process(target=life, args=(str(self.folder), *self.keys, *keys), kwargs=how)
        run.start()
        return run

    def how(self) -> dict[str, bool]:
        """A run that was killed before its first checkpoint has nothing to go on from."""
        return {"resume": True} if self.latest() >= 0 else {"overwrite": True}

    def latest(self) -> int:
        """How many steps the newest checkpoint has seen, which must be readable, as must every other be."""
        for path in self.folder.glob("*.pth"):
            written = (path, path.stat().st_mtime_ns)
            if written not in self.read:
                load_checkpoint(path)
                self.read.add(written)
        found = Checkpointer(self.folder).latest()
        return -1 if found is None else found[1]["iteration"]

    def life(self, *, in_a_write: bool) -> None:
        """Start the run and kill it at a moment that chance decides; `in_a_write`, while it writes a checkpoint."""
        left = self.half_written()  # by the life before
        run = self.start("SOLVER.MAX_ITER", 100_000, **self.how())
        end = time.monotonic() + self.random.uniform(0, LONGEST)
        if in_a_write:
            end += LONGEST
            writes = self.random.integers(1, 5)
            seen = left
            while len(seen - left) < writes and time.monotonic() < end:
                seen = seen | self.half_written()
                time.sleep(0.001)
            time.sleep(self.random.uniform(0, 0.02))
        else:
            time.sleep(max(end - time.monotonic(), 0))
        assert run.is_alive(), f"it ended by itself with {run.exitcode}"
        workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        self.pids |= {run.pid, *map(int, workers)}
        run.kill()
        run.join()
        assert run.exitcode == -9
        writing = self.half_written() - left
        self.fell["writing a checkpoint" if writing else "with workers" if workers else "starting"] += 1

    def half_written(self) -> set[Path]:
        return set(self.folder.glob(".model_*.tmp"))


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


@pytest.mark.slow
def test_a_storm_of_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{Path(__file__).parents[2]}")
    train, val = draw(tmp_path / "train", 6), draw(tmp_path / "val", 4)
    data = ["DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1],
            "DATASETS.VAL_JSON", val[0], "DATASETS.VAL_IMAGES", val[1]]  # fmt: skip
    storm = Storm(tmp_path / "storm", [*data, *KEYS])
    before = -1
    for number in range(KILLS):
        storm.life(in_a_write=number % 3 == 2)
        latest = storm.latest()
        assert latest >= before, "a checkpoint that was there is not any more"
        before = latest
    assert before > 0
    last = ["SOLVER.MAX_ITER", before + 5]
    run = storm.start(*last, resume=True)
    run.join(200)
    assert run.exitcode == 0
    straight = Storm(tmp_path / "straight", storm.keys)
    run = straight.start(*last)
    run.join(200)
    assert run.exitcode == 0
    print(f"\n{KILLS} kills: {dict(storm.fell)}; {before + 5} steps")

    for name in ("model_final.pth", "model_best.pth"):
        one, other = load_checkpoint(tmp_path / "storm" / name), load_checkpoint(tmp_path / "straight" / name)
        for part in ("model", "ema"):
            assert one[part].keys() == other[part].keys()
            assert all(torch.equal(value, other[part][key]) for key, value in one[part].items()), name
        assert one["best"] == other["best"] and one["iteration"] == other["iteration"]
    momentum = [load_checkpoint(s.folder / "model_final.pth")["optimizer"]["state"] for s in (storm, straight)]
    for index, state in momentum[0].items():
        assert torch.equal(state["momentum_buffer"], momentum[1][index]["momentum_buffer"])

    deadline = time.monotonic() + 10
    while alive(storm.pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(storm.pids)
    assert not [p for p in (tmp_path / "storm").rglob(".*") if p.is_file()]
    assert not [name for name in os.listdir("/dev/shm") if any(f"_{pid}_" in name for pid in storm.pids)]
    assert not list(scratch.glob("pymp-*"))
    assert storm.fell["with workers"] + storm.fell["writing a checkpoint"] > KILLS / 2
