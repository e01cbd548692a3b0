"""What users call, on the device: training with evaluation, prediction, pretraining and export."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from se_det.backbones import create_model
from se_det.backbones.catalog import HOSTS
from se_det.cli.main import main
from se_det.data.loader import build_train_loader
from se_det.export import classifier, write
from se_det.inference import Predictor
from se_det.training import datasets
from se_det.training.run import run_evaluation
from tests.classification.picture_sets import add_tiny_host, class_folders
from tests.training.small_detector import config, draw, train_and_evaluate

from .comparing import apart


@pytest.fixture(scope="module")
def trained(device, tmp_path_factory) -> tuple[Path, list]:
    """A detector that was trained and evaluated on the device, and the keys of its data."""
    folder = tmp_path_factory.mktemp("trained")
    json_file, images = draw(folder / "data", 6)
    keys = ["DATASETS.TRAIN_JSON", json_file, "DATASETS.TRAIN_IMAGES", images, "DATASETS.VAL_JSON", json_file,
            "DATASETS.VAL_IMAGES", images, "MODEL.DEVICE", device.type, "SOLVER.MAX_ITER", 4]  # fmt: skip
    train_and_evaluate(str(folder / "run"), *keys)
    return folder, keys


def test_training_with_evaluation(trained):
    folder, _ = trained
    metrics = json.loads((folder / "run/inference/metrics.json").read_text())
    assert set(metrics) == {"bbox", "segm"} and 0 <= metrics["bbox"]["AP"] <= 100
    losses = [json.loads(line) for line in (folder / "run/metrics.json").read_text().splitlines()]
    assert all(math.isfinite(line["total_loss"]) for line in losses if "total_loss" in line)


def test_batches_come_in_memory_that_a_gpu_reads_by_itself(device, trained):
    if device.type == "cpu":
        pytest.skip("a CPU has one kind of memory")
    folder, keys = trained
    cfg = config(folder / "run", *keys)
    loader = build_train_loader(cfg, datasets.train_datasets(cfg), seed=0, pin_memory=True)
    assert all(sample["image"].is_pinned() for sample in next(iter(loader)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_evaluation_is_the_cpus(device, trained, precision):
    folder, keys = trained
    found = {}
    for where in ("cpu", device.type):
        out = folder / f"evaluated on {where} in {precision}"
        more = ["MODEL.WEIGHTS", str(folder / "run/model_final.pth"), "TEST.PRECISION", precision,
                "TEST.IMS_PER_BATCH", 2, "OUTPUT_DIR", str(out)]  # fmt: skip
        run_evaluation(config(out, *keys, "MODEL.DEVICE", where, *more))
        results = json.loads((out / "inference/coco_instances_results.json").read_text())
        found[where] = sorted(r["score"] for r in results)
    fewest = min(len(scores) for scores in found.values())
    assert fewest > 0 and abs(len(found["cpu"]) - len(found[device.type])) <= 0.1 * fewest + 2
    best = [np.array(scores[-10:]) for scores in found.values()]
    assert np.abs(best[0] - best[-1]).max() < (1e-3 if precision == "float32" else 0.05)


def test_prediction(device, trained):
    folder, keys = trained
    images = sorted(str(path) for path in (folder / "data/images").iterdir())
    weights, found = folder / "run/model_final.pth", {}
    for where in ("cpu", device.type):
        cfg = config(folder / "run", *keys, "MODEL.DEVICE", where, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.01)
        found[where] = Predictor(cfg, weights)(images)
    for one, other in zip(found[device.type], found["cpu"], strict=True):
        assert {k: v.dtype for k, v in one.items()} == {k: v.dtype for k, v in other.items()}
        count = min(5, len(other["scores"]))
        assert np.abs(one["scores"][:count] - other["scores"][:count]).max(initial=0) < 1e-3
    out = folder / "pictures"
    command = ["predict", "--config-file", str(folder / "run/config.yaml"), "--weights", str(weights), "--output",
               str(out), images[0], f"MODEL.DEVICE={device.type}"]  # fmt: skip
    assert main(command) == 0
    assert (out / "detections.json").exists()


def test_pretraining(device, tmp_path):
    add_tiny_host()
    try:
        for part, first in (("train", 0), ("val", 6)):
            class_folders(tmp_path / "data" / part, first=first)
        words = ["MODEL.NAME=se_tiny", f"MODEL.DEVICE={device.type}", f"OUTPUT_DIR={tmp_path / 'out'}", "SEED=3",
                 f"DATASETS.TRAIN={tmp_path / 'data/train'}", f"DATASETS.TEST={tmp_path / 'data/val'}",
                 "DATALOADER.NUM_WORKERS=0", "INPUT.IMAGE_SIZE=32", "SOLVER.EPOCHS=3", "SOLVER.IMS_PER_BATCH=6",
                 "SOLVER.AMP.ENABLED=True", "SOLVER.WARMUP_EPOCHS=0", "TEST.IMS_PER_BATCH=6"]  # fmt: skip
        assert main(["pretrain", "--recipe", "se_paper", *words]) == 0
    finally:
        HOSTS.pop("tiny", None)
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.json").read_text().splitlines()]
    assert all(math.isfinite(line["total_loss"]) for line in lines if "total_loss" in line)
    assert (tmp_path / "out/model_final.pth").exists()


def test_export_of_a_network_that_is_on_the_device(device, tmp_path):
    """The file is checked against the network while it is written; the device's own results are the file's too."""
    torch.manual_seed(0)
    model = create_model("se_resnet18", num_classes=10).eval().to(device)
    x = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x.to(device)).cpu()
    assert write(classifier(model), tmp_path / "model.pt2") < 1e-4
    found = torch.export.load(tmp_path / "model.pt2").module()(x)
    assert apart(found if torch.is_tensor(found) else found[0], expected) < 1e-4
