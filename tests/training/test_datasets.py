"""Test data without annotations: the run goes on without a best checkpoint, and says so beforehand."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from small_detector import config, draw, train_and_evaluate

from se_det.training import datasets


@pytest.fixture
def bare(tmp_path: Path) -> tuple[str, str]:
    """Two images whose only annotation is a crowd."""
    path, images = draw(tmp_path / "val", 2)
    document = json.loads(Path(path).read_text())
    document["annotations"] = [{**document["annotations"][0], "iscrowd": 1}]
    Path(path).write_text(json.dumps(document))
    return path, images


def test_a_run_tells_beforehand_that_nothing_will_be_the_best(
    bare: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = draw(tmp_path / "train", 2)
    with caplog.at_level(logging.INFO):
        train_and_evaluate(
            str(tmp_path / "run"), "DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1],
            "DATASETS.VAL_JSON", bare[0], "DATASETS.VAL_IMAGES", bare[1], "SOLVER.MAX_ITER", 3,
            "TEST.EVAL_PERIOD", 1, "TEST.EARLY_STOP", 1,
        )  # fmt: skip
    lines = [record.getMessage() for record in caplog.records]
    [told] = [line for line in lines if bare[0] in line and "no annotations (crowds do not count)" in line]
    assert "no best checkpoint (model_best.pth) will be chosen and TEST.EARLY_STOP will not end the run" in told
    assert lines.index(told) < next(i for i, line in enumerate(lines) if line.startswith("Saved "))
    assert sum("bbox/AP is nan" in line for line in lines) == 1
    assert (tmp_path / "run/model_final.pth").exists() and not (tmp_path / "run/model_best.pth").exists()


def test_it_is_the_set_that_chooses_the_best_that_counts(
    bare: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(tmp_path, "DATASETS.VAL_JSON", bare[0], "DATASETS.VAL_IMAGES", bare[1])
    [without] = datasets.test_datasets(cfg).values()
    sound = draw(tmp_path / "sound", 2)
    cfg.merge_from_list(["DATASETS.VAL_JSON", sound[0], "DATASETS.VAL_IMAGES", sound[1]])
    [with_some] = datasets.test_datasets(cfg).values()
    for best, word in (("", True), ("a/bbox/AP", True), ("b/bbox/AP", False)):
        caplog.clear()
        cfg.TEST.BEST_METRIC = best
        datasets.warn_no_annotations(cfg, {"a": without, "b": with_some, "not ours": None})
        [told] = caplog.records
        assert ("no best checkpoint" in told.getMessage()) is word
