from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from se_det.training.loss_reader import LossReader
from se_det.training.progress import Progress, clock
from se_det.training.run_log import run_log
from se_det.training.writers import Writers, truncate_metrics


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_holds_medians_and_detectron2s_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = Writers(["json", "tensorboard"], tmp_path)
    progress, reader = Progress(start=0, max_iter=25, writer=writer), LossReader()
    for step in range(25):
        # Two parts, whose mean is `step` and 10.
        parts = [{"loss_cls": torch.tensor(step + d), "loss_mask": torch.tensor(10.0 - d)} for d in (-0.5, 0.5)]
        reader.add(step, 0.001 * step, parts, [step])
        if progress.due(step + 1):
            progress.add(reader.read())
            with caplog.at_level(logging.INFO):
                progress.line(step + 1)
    writer.close()
    written = lines(tmp_path / "metrics.json")
    assert [line["iteration"] for line in written] == [1, 20, 25]
    assert written[1].keys() == {
        "iteration", "total_loss", "loss_cls", "loss_mask", "lr", "time", "data_time", "eta_seconds", "max_mem_mib"
    }  # fmt: skip
    assert [line["loss_cls"] for line in written] == [0.0, 10.0, 22.0]
    assert [line["total_loss"] for line in written] == [10.0, 20.0, 32.0]
    assert [line["lr"] for line in written] == pytest.approx([0.0, 0.019, 0.024])
    assert "iter: 20/25  total_loss: 20  loss_cls: 10  loss_mask: 10" in caplog.text
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_lines_after_the_resumed_step_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    rows = [{"iteration": 20, "lr": 1.0}, {"iteration": 40, "lr": 1.0}, {"iteration": 40, "bbox/AP": 3.0},
            {"iteration": 60, "lr": 1.0}]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text + '{"iteration": 80, "l')
    truncate_metrics(path, 60)
    assert lines(path) == rows
    truncate_metrics(path, 40)
    assert lines(path) == rows[:3]
    truncate_metrics(path, 40, evaluated=False)
    assert lines(path) == rows[:2]
    truncate_metrics(tmp_path / "missing.json", 5)
    assert not (tmp_path / "missing.json").exists()


def test_metrics_that_are_not_finite_are_null(tmp_path: Path) -> None:
    writer = Writers(["json", "tensorboard"], tmp_path)
    writer.write(5, {"bbox/AP": float("nan"), "bbox/AP50": 50.0})
    writer.close()
    assert lines(tmp_path / "metrics.json") == [{"iteration": 5, "bbox/AP": None, "bbox/AP50": 50.0}]


def test_the_log_file_begins_before_the_folder(tmp_path: Path) -> None:
    logger = logging.getLogger("se_det.somewhere")
    with run_log() as log:
        logger.info("Engine: builtin")
        log.write_to(tmp_path)
        logger.warning("later")
    logger.warning("outside")
    told = [line.split(" ", 3)[-1] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert told == ["Engine: builtin", "later"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (86400 * 2 + 61, "2 days, 0:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
