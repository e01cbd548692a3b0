"""`se-det train DATA`: from an export of a labelling tool to a checkpoint, its evaluation, and detections."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
import yaml

from se_det.cli.main import main
from tests.data.formats import writers
from tests.data.formats.writers import random_set

# Two steps of a small network: what is tested is how they come about.
SHORT = ["SOLVER.MAX_ITER=2", "SOLVER.IMS_PER_BATCH=2", "INPUT.MIN_SIZE_TRAIN=(64,)", "INPUT.MIN_SIZE_TEST=64",
         "MODEL.FPN.OUT_CHANNELS=16", "MODEL.ROI_BOX_HEAD.FC_DIM=16", "SEED=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("se_det.training.own_data.weights_at_hand", lambda source: False)
    monkeypatch.setattr("se_det.training.recipe.facts.weights_at_hand", lambda source: False)


def exported(tmp_path: Path, write, *, splits=("train",), **options) -> Path:
    (folder := tmp_path / "export").mkdir()
    write(random_set(4, splits=splits, masks=options.pop("masks", False)), folder, **options)
    return folder


def run(*words: object) -> int:
    return main(["train", *map(str, words), "--num-gpus", "0"])


def config(output: Path) -> dict:
    return yaml.safe_load((output / "config.yaml").read_text())


@pytest.mark.parametrize("write", [writers.yolo, writers.voc, writers.labelme, writers.cvat])
def test_an_export_is_trained_on(write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = exported(tmp_path, write), tmp_path / "out"
    with caplog.at_level(logging.INFO):
        assert run(source, "--output", out, *SHORT) == 0
    assert (out / "model_final.pth").is_file() and (out / "report.html").is_file()
    assert re.search("has no validation split, so [12] of its 6 images are held out", caplog.text)
    assert "the recipe sets MODEL.MASK_ON False (was True): no object has a mask." in caplog.text
    saved = config(out)
    assert saved["SOLVER"]["MAX_ITER"] == 2 and saved["SOLVER"]["EMA"]["DECAY"] > 0  # the user's, and the recipe's
    text = (out / "config.yaml").read_text()
    assert "#   MODEL.MASK_ON: False by the recipe (no object has a mask)" in text
    assert "#   SOLVER.MAX_ITER: 2 by the command line" in text


def test_masks_are_found_out(tmp_path: Path) -> None:
    source, out = exported(tmp_path, writers.yolo, masks=True, polygons=True), tmp_path / "out"
    assert run(source, "--output", out, *SHORT, "MODEL.ROI_MASK_HEAD.CONV_DIM=16") == 0
    assert config(out)["MODEL"]["MASK_ON"] is True
    assert run(source, "--output", tmp_path / "boxes", "--task", "boxes", *SHORT) == 0
    assert config(tmp_path / "boxes")["MODEL"]["MASK_ON"] is False


def test_the_split_is_kept_for_resuming_and_evaluating(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = exported(tmp_path, writers.voc), tmp_path / "out"
    assert run(source, "--output", out, *SHORT) == 0
    val = json.loads((out / "split" / "val.json").read_text())
    held_out = len(val["images"])
    assert held_out in (1, 2)
    assert run(source, "--output", out, "--resume", "SOLVER.MAX_ITER=3") == 0
    assert config(out)["DATASETS"]["VAL_JSON"] == str(out / "split" / "val.json")
    evaluated = tmp_path / "evaluated"
    for data in ([source], []):  # the data again, or what the checkpoint says
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert run(*data, "--eval-only", "--output", evaluated, f"MODEL.WEIGHTS={out / 'model_final.pth'}") == 0
        assert f"Evaluated {held_out} images" in caplog.text
    caplog.clear()
    other = tmp_path / "other"
    (other / "x").mkdir(parents=True)
    writers.voc(random_set(4), other / "x")
    with caplog.at_level(logging.INFO):
        assert run(other / "x", "--eval-only", "--output", evaluated, f"MODEL.WEIGHTS={out / 'model_final.pth'}") == 0
    assert "has no validation split: all of 'train' is evaluated" in caplog.text and "Evaluated 6 images" in caplog.text


def test_the_config_of_a_run_reproduces_it_without_a_recipe(tmp_path: Path) -> None:
    source, out, again = exported(tmp_path, writers.yolo, splits=("train", "val")), tmp_path / "a", tmp_path / "b"
    assert run(source, "--output", out, *SHORT) == 0
    assert not (out / "split").exists()  # there was a validation split
    assert run("--config-file", out / "config.yaml", "--output", again) == 0
    losses = [[json.loads(line).get("total_loss") for line in (folder / "metrics.json").read_text().splitlines()]
              for folder in (out, again)]  # fmt: skip
    assert losses[0] == losses[1] and losses[0][0] is not None


def test_data_beside_a_config_is_trained_on_as_that_says(tmp_path: Path) -> None:
    source, out = exported(tmp_path, writers.yolo, splits=("train", "val")), tmp_path / "out"
    assert run(source, "--config-file", "quickstart.yaml", "--output", out, *SHORT, "MODEL.MASK_ON=False") == 0
    assert config(out)["SOLVER"]["EMA"]["DECAY"] == 0.0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "There is nothing to train on: name a data set"),
        (["nowhere"], "There is no file or folder .*nowhere"),
        (["DATA", "--minutes", "5", "--epochs", "2"], "--minutes and --epochs both say how long"),
        (["DATA", "--minutes", "-1"], "--minutes must be above 0, got -1"),
        (["DATA", "--model", "se_resnet5"], "--model 'se_resnet5' is neither a shipped config nor a known model"),
        (["DATA", "--task", "masks"], "--task masks: no object of .* has a mask"),
        (["DATA", "--config-file", "quickstart.yaml", "--minutes", "1"], "--minutes is for training without a config"),
        (["DATA", "--train-json", "x.json"], "is the data, and --train-json names other"),
        (["DATA", "--eval-only"], "--eval-only evaluates weights: give MODEL.WEIGHTS"),
        (["DATA", "--resume"], "There is no run in .* to resume"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exported(tmp_path, writers.yolo, splits=("train", "val"))
    monkeypatch.chdir(tmp_path)
    assert run(*[str(source) if word == "DATA" else word for word in words]) != 0
    assert re.search(told, capsys.readouterr().err.replace("\n", " "))
