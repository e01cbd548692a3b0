"""A pretraining run that was interrupted against one that was not: bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_pretraining import STEPS, at_step, tiny_pretraining

from se_det.classification import run as run_module
from se_det.classification.data.sampler import ImageBatchSampler
from se_det.config import get_cfg
from se_det.errors import CheckpointError, Terminated
from se_det.training import loop
from se_det.training.checkpoint import Checkpointer, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def uninterrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    tiny_pretraining(pictures, folder)
    return folder


def assert_same(a: Any, b: Any, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"config"}:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for place, pair in enumerate(zip(a, b)):
            assert_same(*pair, f"{where}/{place}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, averages, momentum, sampler, best value: all that a checkpoint holds; and the evaluations."""
    for name in ("model_final.pth", "model_best.pth"):
        assert_same(load_checkpoint(a / name), load_checkpoint(b / name), name)
    lines = [
        [
            line
            for line in map(json.loads, (f / "metrics.json").read_text().splitlines())
            if "classification/top1" in line
        ]
        for f in (a, b)
    ]
    assert lines[0] == lines[1]
    assert [line["iteration"] for line in lines[0]] == [5, 10, 14]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", [pytest.param(2, marks=pytest.mark.slow), 7])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    pictures: Path, uninterrupted: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ImageBatchSampler.shard

    def part(self, **how):
        for place, items in enumerate(plain(self, **how)):
            if place == 2 * at + 1:  # in the second half of a step
                raise Interrupted
            yield items

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(ImageBatchSampler, "shard", part)
        tiny_pretraining(pictures, tmp_path)
    assert not (tmp_path / "model_final.pth").exists()
    how = {"resume": True} if at > 4 else {"overwrite": True}  # before the first checkpoint there is nothing to resume
    tiny_pretraining(pictures, tmp_path, **how)
    assert_same_run(tmp_path, uninterrupted)


def test_sigterm_saves_at_that_step_and_leaves(
    pictures: Path, uninterrupted: Path, tmp_path: Path, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "seed_step", loop.seed_step)
        at_step(6, signal.SIGTERM)
        with pytest.raises(Terminated, match="SIGTERM ended the run after 7 of 14 steps.*--resume goes on"):
            tiny_pretraining(pictures, tmp_path)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000007.pth"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    tiny_pretraining(pictures, tmp_path, resume=True)
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_the_test_can_fail(pictures: Path, uninterrupted: Path, tmp_path: Path) -> None:
    tiny_pretraining(pictures, tmp_path, "SEED", 4)
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_five_kills(pictures: Path, uninterrupted: Path, tmp_path: Path, workers: int) -> None:
    """SIGKILL and SIGTERM at five random steps of one run, which the sixth start ends."""
    steps = sorted(np.random.default_rng(workers).choice(np.arange(5, STEPS - 1), 5, replace=False).tolist())
    script = [sys.executable, str(Path(__file__).with_name("tiny_pretraining.py")), str(pictures), str(tmp_path)]
    for place, step in enumerate(steps):
        name = ("KILL_AT", "TERMINATE_AT")[place % 2]
        done = subprocess.run(
            [*script, *(["resume"] if place else []), "DATALOADER.NUM_WORKERS", str(workers)],
            env={**os.environ, "PYTHONPATH": str(ROOT), name: str(step), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == (-9 if name == "KILL_AT" else 1), done.stderr
    tiny_pretraining(pictures, tmp_path, "DATALOADER.NUM_WORKERS", workers, resume=True)
    assert_same_run(tmp_path, uninterrupted)


def test_what_cannot_be_resumed_is_refused(pictures: Path, uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="The run of .* is finished: 14 steps are done"):
        tiny_pretraining(pictures, uninterrupted, resume=True)
    with pytest.raises(CheckpointError, match=r"another configuration: SOLVER.BASE_LR \(was 0.05, now 0.1\)"):
        tiny_pretraining(pictures, uninterrupted, "SOLVER.BASE_LR", 0.1, resume=True)
    with pytest.raises(CheckpointError, match="holds another run"):
        tiny_pretraining(pictures, uninterrupted)
    with pytest.raises(CheckpointError, match="was trained on 18 images, and the training data has 9 now"):
        tiny_pretraining(pictures, uninterrupted, "DATASETS.TRAIN", str(pictures / "val"), "SOLVER.MAX_ITER", 20,
                         resume=True)  # fmt: skip


def test_a_checkpoint_from_before_a_key_is_resumed(pictures: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Pretraining's own default stands for what it does not say: the detector's is another here."""
    state = load_checkpoint(uninterrupted / "model_final.pth")
    saved = yaml.safe_load(state["config"])
    assert saved["MODEL"]["RESNETS"].pop("RES2_OUT_CHANNELS") != get_cfg().MODEL.RESNETS.RES2_OUT_CHANNELS
    Checkpointer(tmp_path).save("model_final", {**state, "config": yaml.safe_dump(saved)})
    with pytest.raises(CheckpointError, match="is finished: 14 steps are done"):  # the last thing that is asked
        tiny_pretraining(pictures, tmp_path, resume=True)


def test_only_the_last_numbered_checkpoints_are_kept(uninterrupted: Path) -> None:
    assert sorted(p.name for p in uninterrupted.glob("*.pth")) == [
        "model_0000008.pth", "model_0000012.pth", "model_best.pth", "model_final.pth"
    ]  # fmt: skip
    assert run_module.KEEP == 2
