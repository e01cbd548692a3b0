"""Whole runs of a small detector on a few drawn images, through the function that the command line calls."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detector import CATEGORIES, EVERY_AUGMENTATION, config, draw, train_and_evaluate

from se_det.config import load_config
from se_det.errors import SeDetError
from se_det.inference import Predictor
from se_det.training.checkpoint import load_checkpoint
from se_det.training.launch import free_port, spawn
from se_det.training.run import run_evaluation, run_training
from se_det.weights import read_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    train = draw(tmp_path_factory.mktemp("data") / "train", 6)
    val = draw(Path(train[0]).parents[1] / "val", 4)
    return ["DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1],
            "DATASETS.VAL_JSON", val[0], "DATASETS.VAL_IMAGES", val[1]]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: list[Any]) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    metrics = run_training(config(folder, *data, "SOLVER.EMA.DECAY", 0.5, "TEST.EVAL_PERIOD", 2))
    assert metrics.keys() == {"bbox", "segm"}
    return folder


def test_a_run_leaves_what_it_should(trained: Path, data: list[Any]) -> None:
    assert {p.name for p in trained.iterdir() if "tfevents" not in p.name} >= {
        "config.yaml", "log.txt", "metrics.json", "last_checkpoint", "model_0000002.pth", "model_0000004.pth",
        "model_final.pth", "inference", "report.html",
    }  # fmt: skip
    final = load_checkpoint(trained / "model_final.pth")
    assert final["iteration"] == 5 and final["categories"] == CATEGORIES
    assert final["model"]["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
    assert final["ema"].keys() == final["model"].keys()
    assert any(not torch.equal(final["ema"][name], value) for name, value in final["model"].items())
    told = (trained / "log.txt").read_text().splitlines()
    assert "Engine: builtin (se_det " in told[0]
    assert any("sets MODEL.ROI_HEADS.NUM_CLASSES 2 (was 80)" in line for line in told)
    # 0.02 is for 16 images, and a step has 2.
    assert any("for SOLVER.IMS_PER_BATCH 2 it is 0.0025" in line for line in told)
    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "bbox/AP" in line] == [2, 4, 5]
    saved = load_config(trained / "config.yaml")
    assert saved.MODEL.ROI_HEADS.NUM_CLASSES == 2 and saved.SOLVER.BASE_LR == 0.02


def test_a_resumed_run_equals_it(trained: Path, data: list[Any], tmp_path: Path) -> None:
    for name in ("model_0000002.pth", "metrics.json", "last_checkpoint", "model_best.pth"):
        source = trained / name
        if source.exists():
            (tmp_path / name).write_bytes(source.read_bytes())
    (tmp_path / "last_checkpoint").write_text("model_0000002.pth")
    # The seed is the checkpoint's where none is asked for.
    keys = [*data, "SOLVER.EMA.DECAY", 0.5, "TEST.EVAL_PERIOD", 2]
    run_training(config(tmp_path, *keys, "SEED", -1), resume=True)
    one, other = load_checkpoint(trained / "model_final.pth"), load_checkpoint(tmp_path / "model_final.pth")
    for part in ("model", "ema"):
        assert one[part].keys() == other[part].keys()
        for name, value in one[part].items():
            assert torch.equal(other[part][name], value), name
    assert one["best"] == other["best"]


@pytest.mark.slow
@pytest.mark.parametrize("augmentations", [[], EVERY_AUGMENTATION], ids=["default", "augmented"])
def test_a_killed_run_resumed_equals_one_that_was_not(data: list[Any], tmp_path: Path, augmentations: list) -> None:
    """SIGKILL from outside, at whatever the run is doing then, with workers loading."""
    keys = [
        *data, "INPUT.AUGMENTATIONS", augmentations, "DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler",
        "DATALOADER.REPEAT_THRESHOLD", 0.8, "SOLVER.MAX_ITER", 8, "DATALOADER.NUM_WORKERS", 2, "SOLVER.EMA.DECAY", 0.5,
        "TEST.EVAL_PERIOD", 3,
    ]  # fmt: skip
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run_training(config(straight, *keys))
    here = str(Path(__file__).parent)
    code = (
        f"import sys; sys.path.insert(0, {here!r})\n"
        f"import small_detector; small_detector.train_and_evaluate({str(killed)!r}, *{keys!r})"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(here).parents[1])},
        stdout=subprocess.DEVNULL,
    )
    try:
        while not (killed / "model_0000004.pth").exists():
            assert run.poll() is None, "it ended by itself"
            time.sleep(0.01)
        time.sleep(random.uniform(0, 1))
    finally:
        run.kill()
        run.wait()
    assert not (killed / "model_final.pth").exists()
    run_training(config(killed, *keys), resume=True)
    one, other = load_checkpoint(straight / "model_final.pth"), load_checkpoint(killed / "model_final.pth")
    for part in ("model", "ema"):
        assert all(torch.equal(other[part][name], value) for name, value in one[part].items())
    assert one["best"] == other["best"]


def test_evaluation_gives_what_training_gave(trained: Path, data: list[Any], tmp_path: Path) -> None:
    """With the averaged weights, which are those that training evaluated."""
    metrics = run_evaluation(config(tmp_path, *data, "MODEL.WEIGHTS", str(trained / "model_final.pth")))
    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    assert metrics["bbox"]["AP"] == lines[-1]["bbox/AP"]
    assert json.loads((tmp_path / "inference" / "metrics.json").read_text())["segm"]["AP"] == metrics["segm"]["AP"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inference", "report.html"]


def _exported(data: list[Any], folder: Path, categories: list[dict[str, Any]], ids: dict[int, int]) -> list[Any]:
    """The evaluation data with other category ids, as a second export of a labelling tool has them."""
    content = json.loads(Path(data[5]).read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = ids[annotation["category_id"]]
    (folder / "val.json").write_text(json.dumps({**content, "categories": categories}))
    return ["DATASETS.VAL_JSON", str(folder / "val.json"), "DATASETS.VAL_IMAGES", data[7]]


def test_classes_are_evaluated_by_their_names(trained: Path, data: list[Any], tmp_path: Path) -> None:
    """The same classes under exchanged ids give the same detections of the same names."""
    weights = ("MODEL.WEIGHTS", str(trained / "model_final.pth"))
    score = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    run_evaluation(config(tmp_path / "one", *data, *weights, *score))
    swapped = _exported(data, tmp_path, [{"id": 1, "name": "bar"}, {"id": 2, "name": "square"}], {4: 2, 90: 1})
    metrics = run_evaluation(config(tmp_path / "two", *swapped, *weights, *score))
    before = json.loads((tmp_path / "one" / "inference" / "metrics.json").read_text())
    for task in ("bbox", "segm"):
        for name in ("AP", "AP50", "AP-square", "AP-bar"):
            assert metrics[task][name] == before[task][name]
    found = []
    for folder, names in (("one", {4: "square", 90: "bar"}), ("two", {2: "square", 1: "bar"})):
        results = json.loads((tmp_path / folder / "inference" / "coco_instances_results.json").read_text())
        found.append(sorted((r["image_id"], names[r["category_id"]], r["score"], r["bbox"]) for r in results))
    assert len(found[0]) > 10 and found[0] == found[1]


@pytest.mark.parametrize("names", [("zebra", "lion"), ("square", "circle"), ("square",), ("square", "bar", "dot")])
def test_data_of_other_classes_is_not_evaluated(
    trained: Path, data: list[Any], tmp_path: Path, names: tuple[str, ...]
) -> None:
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    other = _exported(data, tmp_path, categories, {4: 0, 90: len(names) - 1})
    with pytest.raises(SeDetError) as error:
        run_evaluation(config(tmp_path / "out", *other, "MODEL.WEIGHTS", str(trained / "model_final.pth")))
    assert "'square', 'bar'" in str(error.value) and ", ".join(map(repr, names)) in str(error.value)


def test_a_number_of_classes_that_is_not_the_checkpoints_is_refused(
    trained: Path, data: list[Any], tmp_path: Path
) -> None:
    given = [*data, "MODEL.WEIGHTS", str(trained / "model_final.pth"), "MODEL.ROI_HEADS.NUM_CLASSES", 7]
    for use in (run_evaluation, Predictor):
        with pytest.raises(SeDetError, match=r"NUM_CLASSES is 7 \(the command line\).*trained on 2 classes"):
            use(config(tmp_path / "out", *given))


def test_a_new_class_starts_fresh_and_the_others_keep_their_rows(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    categories = [{"id": 1, "name": "bar"}, {"id": 2, "name": "dot"}, {"id": 3, "name": "square"}]
    train = draw(tmp_path / "train", 4, categories)
    weights = str(trained / "model_final.pth")
    given = ["DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1], "MODEL.WEIGHTS", weights,
             "SOLVER.BASE_LR", 1e-9, "SOLVER.MAX_ITER", 1]  # fmt: skip
    run_training(config(tmp_path / "out", *given))
    old, new = read_weights(weights).tensors, load_checkpoint(tmp_path / "out" / "model_final.pth")["model"]
    cls, box, mask = (
        "roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.mask_head.predictor.weight",
    )  # fmt: skip
    torch.testing.assert_close(new[cls][[0, 2, 3]], old[cls][[1, 0, 2]], atol=1e-6, rtol=0)  # the last is background
    torch.testing.assert_close(new[box].view(3, 4, -1)[[0, 2]], old[box].view(2, 4, -1)[[1, 0]], atol=1e-6, rtol=0)
    torch.testing.assert_close(new[mask][[0, 2]], old[mask][[1, 0]], atol=1e-6, rtol=0)
    assert not torch.allclose(new[cls][1], old[cls][0], atol=1e-4)
    assert (
        "Of the 3 classes 2 keep their rows of the predictors ('bar', 'square'), 1 start fresh ('dot')" in caplog.text
    )


@pytest.mark.parametrize("part", ["roi_heads.box_predictor.cls_score.weight", "backbone.fpn_lateral2.weight"])
@pytest.mark.parametrize("where", ["model", "ema"])
def test_weights_that_are_not_finite_are_refused_wherever_they_are(
    trained: Path, data: list[Any], tmp_path: Path, part: str, where: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    for name in ("model_0000004.pth", "model_final.pth"):
        saved = load_checkpoint(folder / name)
        saved[where][part].view(-1)[0] = float("nan")
        torch.save(saved, folder / name)
    weights = ("MODEL.WEIGHTS", str(folder / "model_final.pth"))
    uses = [lambda: run_training(config(folder, *data, "SOLVER.EMA.DECAY", 0.5, "TEST.EVAL_PERIOD", 2,
                                        "SOLVER.MAX_ITER", 9), resume=True)]  # fmt: skip
    if where == "ema":  # which is what all others take
        uses += [lambda: run_evaluation(config(tmp_path / "e", *data, *weights)),
                 lambda: run_training(config(tmp_path / "t", *data, *weights)),
                 lambda: Predictor(config(tmp_path / "p", *weights))]  # fmt: skip
    for use in uses:
        with pytest.raises(SeDetError, match=rf"model_.*\.pth: {part} has values that are not finite"):
            use()


@pytest.mark.slow
def test_two_processes_evaluate_as_one(data: list[Any], tmp_path: Path) -> None:
    two = tmp_path / "two"
    spawn(train_and_evaluate, (str(two), *data, "SOLVER.MAX_ITER", 2), processes=2,
          url=f"tcp://127.0.0.1:{free_port()}")  # fmt: skip
    found = json.loads((two / "inference" / "coco_instances_results.json").read_text())
    metrics = run_evaluation(config(tmp_path / "one", *data, "MODEL.WEIGHTS", str(two / "model_final.pth")))
    assert json.loads((tmp_path / "one" / "inference" / "coco_instances_results.json").read_text()) == found
    assert {result["category_id"] for result in found} <= {4, 90} and len(found) > 0
    written = json.loads((two / "inference" / "metrics.json").read_text())["bbox"]
    assert metrics["bbox"]["AP50"] == written["AP50"] > 0


REFUSED = {
    "no weights": (["MODEL.BACKBONE.FREEZE_AT", 2], r"MODEL.BACKBONE.FREEZE_AT 2 would.*MODEL.WEIGHTS is empty"),
    "no data": (["DATASETS.TRAIN_JSON", "", "DATASETS.TRAIN_IMAGES", "", "DATASETS.TRAIN", ()], "no training data"),
    "no images": (["DATASETS.TRAIN_IMAGES", ""], r"DATASETS.TRAIN_IMAGES is empty.*--train-images"),
    "unknown set": (
        ["DATASETS.TRAIN_JSON", "", "DATASETS.TRAIN_IMAGES", "", "DATASETS.TRAIN", ("coco_2017_trian",)],
        "coco_2017_train",
    ),
    "best metric": (["TEST.BEST_METRIC", "bbox/AP5"], r"TEST.BEST_METRIC 'bbox/AP5'.*Did you mean 'bbox/AP"),
    "schedule": (["SOLVER.LR_SCHEDULER_NAME", "Step"], "SOLVER.LR_SCHEDULER_NAME 'Step'"),
    "optimiser": (["SOLVER.OPTIMIZER", "Adam"], "SOLVER.OPTIMIZER 'Adam'"),
    "precision": (["SOLVER.AMP.DTYPE", "half"], "SOLVER.AMP.DTYPE 'half'"),
    "device": (["MODEL.DEVICE", "gpu"], "MODEL.DEVICE 'gpu'"),
    "missing weights": (["MODEL.WEIGHTS", "nowhere.pth"], r"nowhere\.pth"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_no_folder(data: list[Any], tmp_path: Path, case: str) -> None:
    overrides, sentence = REFUSED[case]
    with pytest.raises(SeDetError, match=sentence):
        run_training(config(tmp_path / "out", *data, *overrides))
    assert not (tmp_path / "out").exists()


def test_other_categories_in_the_test_data_are_refused(data: list[Any], tmp_path: Path) -> None:
    other = draw(tmp_path / "other", 2, [CATEGORIES[0], {"id": 91, "name": "bar"}])
    with pytest.raises(SeDetError, match=r"9[01]"):
        run_training(config(tmp_path / "out", *data, "DATASETS.VAL_JSON", other[0], "DATASETS.VAL_IMAGES", other[1]))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_run_is_left_as_it_is(trained: Path, data: list[Any]) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    with pytest.raises(SeDetError, match="holds another run"):
        run_training(config(trained, *data))
    with pytest.raises(SeDetError, match=r"another configuration: SOLVER.EMA.DECAY \(was 0.5, now 0.0\)"):
        run_training(config(trained, *data), resume=True)
    with pytest.raises(SeDetError, match="is finished: 5 steps"):
        run_training(config(trained, *data, "SOLVER.EMA.DECAY", 0.5), resume=True)
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before


def test_evaluation_without_weights_or_data_is_refused(data: list[Any], tmp_path: Path) -> None:
    with pytest.raises(SeDetError, match="no weights were given"):
        run_evaluation(config(tmp_path, *data))
    without = ["DATASETS.TRAIN_JSON", "x.json", "DATASETS.TRAIN_IMAGES", "x", "MODEL.WEIGHTS", "x.pth"]
    with pytest.raises(SeDetError, match="no data to evaluate on"):
        run_evaluation(config(tmp_path, *without))


def test_a_missing_gpu_is_told(data: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with caplog.at_level(logging.INFO), pytest.raises(SeDetError, match="no weights were given"):
        run_evaluation(config(tmp_path, *data, "MODEL.DEVICE", "cuda"))
    assert "Engine: builtin" in caplog.records[0].getMessage()
    assert "this machine sets MODEL.DEVICE cpu (was cuda): there is no GPU." in caplog.text
