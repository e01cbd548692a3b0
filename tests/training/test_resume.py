"""A run that was killed and resumed against one that was not: bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import MAX_ITER, tiny_run

from se_det.errors import CheckpointError
from se_det.training.checkpoint import Checkpointer, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    tiny_run(folder)
    return folder


def run_until_killed(folder: Path, kill_at: int, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("tiny_run.py")), str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KILL_AT": str(kill_at)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr


def assert_equal(a: object, b: object, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b)):
            assert_equal(*pair, f"{where}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.parametrize(
    "kill_at", [7, *(pytest.param(step, marks=pytest.mark.slow) for step in (5, 8, 10, 12, 16, 21, 23))]
)
def test_a_killed_run_ends_as_if_it_had_not_been(uninterrupted: Path, tmp_path: Path, kill_at: int) -> None:
    run_until_killed(tmp_path, kill_at)
    assert not (tmp_path / "model_final.pth").exists()
    tiny_run(tmp_path, resume=True)
    for name in ("model_final.pth", "model_best.pth"):
        # Everything: weights, averages, momentum, loss scale, best value, evaluations without a better one.
        assert_equal(load_checkpoint(tmp_path / name), load_checkpoint(uninterrupted / name), name)
    evaluated = [
        [line for line in map(json.loads, (folder / "metrics.json").read_text().splitlines()) if "bbox/AP" in line]
        for folder in (uninterrupted, tmp_path)
    ]
    assert evaluated[0] == evaluated[1]
    assert [line["iteration"] for line in evaluated[1]] == [4, 8, 12, 16, 20, 24]


def test_the_test_can_fail(uninterrupted: Path, tmp_path: Path) -> None:
    """Without the momentum of the checkpoint the end is another."""
    tiny_run(tmp_path, max_iter=10)
    (tmp_path / "model_0000005.pth").unlink()
    state = load_checkpoint(tmp_path / "model_final.pth")
    state["optimizer"]["state"] = {}
    Checkpointer(tmp_path).save("model_final", state)
    tiny_run(tmp_path, resume=True)
    with pytest.raises(AssertionError, match="model"):
        assert_equal(load_checkpoint(tmp_path / "model_final.pth"), load_checkpoint(uninterrupted / "model_final.pth"))


def test_a_run_is_resumed_from_the_checkpoint_before_a_torn_one(uninterrupted: Path, tmp_path: Path) -> None:
    tiny_run(tmp_path, max_iter=15)
    (tmp_path / "model_final.pth").rename(tmp_path / "model_0000015.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000015.pth")
    torn = tmp_path / "model_0000015.pth"
    assert (tmp_path / "last_checkpoint").read_text() == torn.name
    torn.write_bytes(torn.read_bytes()[:-100])
    assert Checkpointer(tmp_path).latest()[0].name == "model_0000010.pth"
    tiny_run(tmp_path, resume=True)
    assert_equal(load_checkpoint(tmp_path / "model_final.pth"), load_checkpoint(uninterrupted / "model_final.pth"))


def test_a_checkpoint_killed_while_it_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = Checkpointer(tmp_path)
    saver.save("model_0000001", {"iteration": 1})

    def half(state: object, file: object) -> None:
        file.write(b"PK half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        saver.save("model_0000002", {"iteration": 2})
    assert saver.latest()[1] == {"iteration": 1}
    assert not (tmp_path / "model_0000002.pth").exists()


def test_a_run_killed_in_its_last_evaluation_is_resumed_to_do_it(uninterrupted: Path, tmp_path: Path) -> None:
    """model_final.pth is written before the evaluation too: what is owed is told by `best`."""
    tiny_run(tmp_path)
    final = load_checkpoint(tmp_path / "model_final.pth")
    before = load_checkpoint(tmp_path / "model_0000020.pth")["best"]
    assert before["evaluated"] == 16 and final["best"]["evaluated"] == MAX_ITER
    final["best"] = {**before, "evaluated": 20}
    Checkpointer(tmp_path).save("model_final", final)
    actions = tiny_run(tmp_path, resume=True)
    assert actions.last_metrics["bbox"]["AP"] >= 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "bbox/AP" in line] == [4, 8, 12, 16, 20, 24]
    assert load_checkpoint(tmp_path / "model_final.pth")["best"]["evaluated"] == MAX_ITER


def test_a_finished_run_says_so(uninterrupted: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is finished: 24 steps .* SOLVER.MAX_ITER is 24.*Raise SOLVER.MAX_ITER"):
        tiny_run(uninterrupted, resume=True)
    with pytest.raises(CheckpointError, match=r"24 steps are done and SOLVER.MAX_ITER is 10"):
        tiny_run(uninterrupted, resume=True, max_iter=10)


def test_a_finished_run_goes_on_when_there_is_more_to_do(tmp_path: Path) -> None:
    tiny_run(tmp_path, max_iter=12)
    tiny_run(tmp_path, max_iter=MAX_ITER, resume=True)
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == MAX_ITER


def test_loss_scaling_is_resumed(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    tiny_run(straight, fp16=True)
    tiny_run(broken, fp16=True, max_iter=10)
    tiny_run(broken, fp16=True, resume=True)
    final = load_checkpoint(straight / "model_final.pth")
    assert final["scaler"]["scale"] > 0
    assert_equal({**final, "best": 0}, {**load_checkpoint(broken / "model_final.pth"), "best": 0})
