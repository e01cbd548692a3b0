"""Whole runs of the architectures besides GeneralizedRCNN: train, evaluate, resume, predict, preview."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detector import draw

from se_det.cli.main import main
from se_det.config import load_config
from se_det.inference import Predictor
from se_det.training.checkpoint import load_checkpoint
from se_det.training.run import run_evaluation, run_training

KEYS = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
    "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.FPN.OUT_CHANNELS", 32,
    "INPUT.MIN_SIZE_TRAIN", (64, 80), "INPUT.MIN_SIZE_TEST", 64, "DATALOADER.NUM_WORKERS", 0, "SEED", 5,
    "SOLVER.IMS_PER_BATCH", 2, "SOLVER.ACCUMULATE", 2, "SOLVER.MAX_ITER", 4, "SOLVER.WARMUP_ITERS", 2,
    "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_LOSS", True,
]  # fmt: skip
CASES = {
    "retinanet_se_r50_fpn": ["MODEL.RETINANET.NUM_CONVS", 1, "MODEL.RETINANET.SCORE_THRESH_TEST", 0.0],
    "fcos_se_r50_fpn": ["MODEL.FCOS.NUM_CONVS", 1, "MODEL.FCOS.INFERENCE_TH_TEST", 0.0],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    train = draw(tmp_path_factory.mktemp("data") / "train", 6)
    return ["DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1],
            "DATASETS.VAL_JSON", train[0], "DATASETS.VAL_IMAGES", train[1]]  # fmt: skip


@pytest.mark.parametrize("name", ["retinanet_se_r50_fpn", pytest.param("fcos_se_r50_fpn", marks=pytest.mark.slow)])
def test_a_run_its_resumption_its_evaluation_and_its_predictions(name: str, data: list[Any], tmp_path: Path):
    torch.set_num_threads(1)

    def config(folder: str, *more: Any):
        return load_config(
            f"configs/{name}.yaml", [*KEYS, *CASES[name], *data, "OUTPUT_DIR", str(tmp_path / folder), *more]
        )

    metrics = run_training(config("whole"))
    assert metrics["bbox"].keys() >= {"AP", "AP50", "AP-square", "AP-bar"}
    assert metrics["validation"]["total_loss"] > 0
    whole = load_checkpoint(tmp_path / "whole" / "model_final.pth")
    assert "NUM_CLASSES: 2" in (tmp_path / "whole" / "config.yaml").read_text()
    assert (tmp_path / "whole" / "report.html").stat().st_size > 10_000

    (tmp_path / "again").mkdir()
    for part in ("model_0000002.pth", "last_checkpoint", "metrics.json"):
        (tmp_path / "again" / part).write_bytes((tmp_path / "whole" / part).read_bytes())
    (tmp_path / "again" / "last_checkpoint").write_text("model_0000002.pth")
    run_training(config("again"), resume=True)
    again = load_checkpoint(tmp_path / "again" / "model_final.pth")
    assert again["running"] == whole["running"] and all(value not in (100, 300) for value in whole["running"].values())
    assert all(torch.equal(again["model"][key], value) for key, value in whole["model"].items())

    weights = str(tmp_path / "whole" / "model_final.pth")
    evaluated = run_evaluation(config("eval", "MODEL.WEIGHTS", weights, "TEST.EVAL_LOSS", False))
    assert evaluated["bbox"]["AP"] == pytest.approx(metrics["bbox"]["AP"], nan_ok=True)
    predictor = Predictor(weights)
    image = next(Path(data[3]).iterdir())
    found = predictor(image)
    assert predictor.class_names == ["square", "bar"] and len(found["scores"]) > 20
    told = json.loads((tmp_path / "whole" / "inference" / "coco_instances_results.json").read_text())
    assert {result["category_id"] for result in told} <= {4, 90} and told


@pytest.mark.parametrize("name", CASES)
def test_a_preview_says_what_it_has_of_anchors(name: str, data: list[Any], tmp_path: Path):
    words = [f"{key}={value}" for key, value in zip(data[::2], data[1::2])]
    config = ["--config-file", f"configs/{name}.yaml", "--output", str(tmp_path), "MODEL.WEIGHTS=",
              "MODEL.BACKBONE.FREEZE_AT=0", "MODEL.RESNETS.NORM=BN", "MODEL.DEVICE=cpu", *words]  # fmt: skip
    assert main(["preview", *config, "--samples", "2"]) == 0
    page = (tmp_path / "preview.html").read_text()
    assert ("FCOS has no anchors" in page) == (name == "fcos_se_r50_fpn")
    assert ("512, 645.08, 812.749" in page) == (name == "retinanet_se_r50_fpn")


@pytest.mark.slow
def test_a_run_of_proposals_alone(data: list[Any], tmp_path: Path):
    torch.set_num_threads(1)
    keys = [*KEYS, *data, "OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", 2]
    metrics = run_training(load_config("configs/rpn_se_r50_fpn.yaml", keys))
    assert 0 < metrics["box_proposals"]["AR@1000"] < 100
    assert json.loads((tmp_path / "inference" / "metrics.json").read_text())["box_proposals"].keys() >= {"ARs@100"}
    predictor = Predictor(tmp_path / "model_final.pth")
    found = predictor(next(Path(data[3]).iterdir()))
    assert predictor.class_names == ["object"] and len(found["scores"]) > 20
    assert (found["scores"][:-1] >= found["scores"][1:]).all() and found["scores"][0] <= 1
