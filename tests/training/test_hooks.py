from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from se_det.errors import CheckpointError, ConfigError
from se_det.training.checkpoint import Checkpointer, load_checkpoint
from se_det.training.hooks import PeriodicActions


def actions(folder: Path, scores: list[float], **settings: Any) -> PeriodicActions:
    """Evaluations that give `scores` one after another."""
    left = iter(scores)
    return PeriodicActions(
        **{
            "checkpointer": Checkpointer(folder),
            "snapshot": lambda step: {"iteration": step},
            "weights": lambda step: {"iteration": step},
            "max_iter": 12,
            "checkpoint_period": 5,
            "evaluate": lambda: {"bbox": {"AP": next(left), "AP50": 1.0}, "segm": {"AP": 50.0}},
            "eval_period": 2,
            **settings,
        }
    )


def run(parts: PeriodicActions, start: int = 0) -> int:
    for step in range(start + 1, 100):
        if parts.due(step) and parts(step):
            return step
    return -1


def test_the_best_is_kept_and_the_rest_is_where_it_should_be(tmp_path: Path) -> None:
    parts = actions(tmp_path, [10.0, 30.0, float("nan"), 30.0, 20.0, 5.0])
    assert run(parts) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "last_checkpoint", "model_0000005.pth", "model_0000010.pth", "model_best.pth", "model_final.pth"
    ]  # fmt: skip
    best = {"metric": "bbox/AP", "value": 30.0, "step": 4}
    assert load_checkpoint(tmp_path / "model_best.pth")["iteration"] == 4
    assert best.items() <= load_checkpoint(tmp_path / "model_best.pth")["best"].items()
    final = load_checkpoint(tmp_path / "model_final.pth")
    assert final["best"] == {**best, "without_better": 3, "evaluated": 12, "stopped": False}
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert parts.last_metrics["segm"] == {"AP": 50.0}


def test_a_run_without_anything_better_stops_and_says_so_when_resumed(tmp_path: Path) -> None:
    assert run(actions(tmp_path, [10.0, 30.0, 29.0, 30.0, 99.0], early_stop=2)) == 8
    final = load_checkpoint(tmp_path / "model_final.pth")
    assert final["iteration"] == 8 and final["best"]["stopped"]
    with pytest.raises(CheckpointError, match=r"stopped early after 8 steps.*Raise TEST.EARLY_STOP"):
        actions(tmp_path, [], early_stop=2, best=final["best"]).check_unfinished(8, "x")
    longer = actions(tmp_path, [99.0, 1.0], early_stop=3, best=final["best"])
    longer.check_unfinished(8, "x")
    assert run(longer, 8) == 12
    assert longer.best["value"] == 99.0


def test_what_is_not_a_number_is_told_once_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nan = float("nan")
    parts = actions(tmp_path, [nan, nan, nan, 1.0, nan, 0.5], early_stop=2)
    assert run(parts) == 12
    assert (parts.best["value"], parts.best["without_better"], parts.best["stopped"]) == (1.0, 1, False)
    [told] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "bbox/AP is nan after 2 steps" in told and "does not count for TEST.EARLY_STOP" in told


def test_only_at_the_end_when_no_period_is_given(tmp_path: Path) -> None:
    assert run(actions(tmp_path, [10.0], eval_period=0, checkpoint_period=0)) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_best.pth", "model_final.pth"]


def test_without_an_evaluation_the_end_is_the_last_step(tmp_path: Path) -> None:
    parts = actions(tmp_path, [], evaluate=None)
    assert run(parts) == 12
    with pytest.raises(CheckpointError, match="finished"):
        parts.check_unfinished(12, "x")


def test_a_checkpoint_is_written_before_an_evaluation_that_fails(tmp_path: Path) -> None:
    def fail() -> dict:
        raise MemoryError

    parts = actions(tmp_path, [], evaluate=fail, eval_period=5)
    with pytest.raises(MemoryError):
        run(parts)
    state = load_checkpoint(tmp_path / "model_0000005.pth")
    assert state["best"]["evaluated"] == 0
    resumed = actions(tmp_path, [42.0], eval_period=5, best=state["best"])
    assert resumed.evaluation_pending(5)
    assert resumed.evaluate_if_due(5) is False
    assert resumed.best["value"] == 42.0 and not resumed.evaluation_pending(5)


def test_another_metric_may_choose_the_best(tmp_path: Path) -> None:
    parts = actions(tmp_path, [10.0, 30.0], best_metric="bbox/AP50")
    parts.evaluate_if_due(2)
    parts.evaluate_if_due(4)
    assert parts.best["value"] == 1.0 and parts.best["step"] == 2
    with pytest.raises(ConfigError, match=r"TEST.BEST_METRIC 'bbox/AP5' is not a metric of .*bbox/AP50"):
        actions(tmp_path, [1.0], best_metric="bbox/AP5").evaluate_if_due(2)


def test_what_an_evaluation_found_is_kept_with_the_weights_it_evaluated(tmp_path: Path) -> None:
    count = iter(range(1, 100))
    parts = actions(tmp_path, [10.0, 30.0, 1.0, 1.0, 1.0, 5.0], findings=lambda: {"thresholds": {"car": next(count)}})
    assert run(parts) == 12
    assert load_checkpoint(tmp_path / "model_best.pth")["thresholds"] == {"car": 2}  # of step 4
    assert load_checkpoint(tmp_path / "model_final.pth")["thresholds"] == {"car": 6}
    # Step 10 was saved before its evaluation, and step 5 has none.
    assert not any("thresholds" in load_checkpoint(tmp_path / f"model_{step:07d}.pth") for step in (5, 10))
