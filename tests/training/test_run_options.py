"""Runs with what a recipe may choose, all of it at once: they end, and a resumed one is the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detector import config, draw
from torch import nn

from se_det.data import read_coco
from se_det.detection import build_detector
from se_det.errors import ConfigError, DataError
from se_det.training import build
from se_det.training.checkpoint import load_checkpoint
from se_det.training.datasets import class_image_counts
from se_det.training.run import run_evaluation, run_training

OPTIONS = [
    "MODEL.RESNETS.NORM", "BN", "MODEL.RPN.BBOX_REG_LOSS_TYPE", "giou", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "ciou",
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES", 2, "MODEL.ROI_HEADS.NMS_TYPE", "gaussian",
    "MODEL.RESNETS.STOCHASTIC_DEPTH", 0.3, "MODEL.CHECKPOINT_ACTIVATIONS", True, "SOLVER.LAYER_DECAY", 0.9,
    "SOLVER.OPTIMIZER", "AdamW", "SOLVER.BASE_LR", 0.001, "SOLVER.EMA.DECAY", 0.5, "SOLVER.MAX_ITER", 4,
    "TEST.EVAL_PERIOD", 2, "TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 3,
    "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (56,),
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    path, images = draw(tmp_path_factory.mktemp("data") / "train", 4)
    return ["DATASETS.TRAIN_JSON", path, "DATASETS.TRAIN_IMAGES", images, "DATASETS.VAL_JSON", path,
            "DATASETS.VAL_IMAGES", images]  # fmt: skip


@pytest.mark.slow
def test_a_run_with_all_of_them(data: list[Any], tmp_path: Path) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    metrics = run_training(config(straight, *data, *OPTIONS))
    assert set(metrics) == {"bbox", "segm", "bbox_TTA", "segm_TTA"}
    lines = [json.loads(line) for line in (straight / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "bbox/AP" in line] == [2, 4]
    [augmented] = [line for line in lines if "bbox_TTA/AP" in line]
    assert augmented["iteration"] == 4 and augmented["bbox_TTA/AP"] == metrics["bbox_TTA"]["AP"]
    assert (straight / "TTA/inference/coco_instances_results.json").exists()

    resumed.mkdir()
    (resumed / "model_0000002.pth").write_bytes((straight / "model_0000002.pth").read_bytes())
    (resumed / "last_checkpoint").write_text("model_0000002.pth")
    run_training(config(resumed, *data, *OPTIONS, "TEST.AUG.ENABLED", False), resume=True)
    one, other = (load_checkpoint(folder / "model_final.pth") for folder in (straight, resumed))
    for part in ("model", "ema"):
        for name, value in one[part].items():
            assert torch.equal(other[part][name], value), name

    # What is evaluated has the norms' exact statistics, which the checkpoint has too.
    weights = ["MODEL.WEIGHTS", str(straight / "model_final.pth")]
    found = run_evaluation(config(tmp_path / "again", *data, *OPTIONS, *weights))
    assert json.dumps(found, sort_keys=True) == json.dumps(metrics, sort_keys=True)  # NaN is not equal to itself


def test_precise_statistics_are_in_the_checkpoint(data: list[Any], tmp_path: Path) -> None:
    keys = [*data, "MODEL.RESNETS.NORM", "BN", "SOLVER.MAX_ITER", 1, "MODEL.MASK_ON", False]
    states = []
    for folder, more in (("plain", []), ("exact", ["TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2])):
        run_training(config(tmp_path / folder, *keys, *more))
        states.append(load_checkpoint(tmp_path / folder / "model_final.pth")["model"])
    differing = {name for name, value in states[0].items() if not torch.equal(states[1][name], value)}
    model = build_detector(config(tmp_path, *keys, "MODEL.ROI_HEADS.NUM_CLASSES", 2))
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    expected = {f"{name}.{part}" for name in norms for part in ("running_mean", "running_var")}
    assert differing == expected and norms


def test_federated_classes_are_drawn_by_the_images_that_have_them(data: list[Any], tmp_path: Path) -> None:
    document = json.loads(Path(data[1]).read_text())
    document["categories"].append({"id": 95, "name": "never"})
    document["annotations"].append({**document["annotations"][0], "id": 999})  # twice in one image counts once
    document["annotations"] = [a for a in document["annotations"] if a["id"] != 2]
    (tmp_path / "data.json").write_text(json.dumps(document))
    dataset = read_coco(tmp_path / "data.json", data[3])
    keys = ["MODEL.ROI_HEADS.NUM_CLASSES", 3, *OPTIONS, "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER", 0.5]
    cfg = config(tmp_path, *keys)
    model = build_detector(cfg)
    build.fill_class_weights(cfg, model, [dataset, dataset])
    # Two images of the first class and one of the second, in each of two sets; the third counts as if it had one.
    expected = torch.tensor([4.0, 2.0, 1.0]).sqrt()
    torch.testing.assert_close(model.roi_heads.box_predictor.fed_loss_cls_weights, expected)

    # What a file declares is believed, as LVIS's of a part of it; a set that says nothing is still counted.
    for category, count in zip(document["categories"], (900, 100, 7)):
        category["image_count"] = count
    (tmp_path / "declared.json").write_text(json.dumps(document))
    declared = read_coco(tmp_path / "declared.json", data[3]).subset([0])
    build.fill_class_weights(cfg, model, [declared])
    weights = model.roi_heads.box_predictor.fed_loss_cls_weights
    torch.testing.assert_close(weights, torch.tensor([900.0, 100.0, 7.0]).sqrt())
    assert class_image_counts([declared, dataset]).tolist() == [902, 101, 7]
    for fault in (None, "7", True, -1):
        document["categories"][2]["image_count"] = fault
        (tmp_path / "faulty.json").write_text(json.dumps(document))
        with pytest.raises(DataError, match=f"category 95 has the image_count {fault!r}, and others have one"):
            class_image_counts([read_coco(tmp_path / "faulty.json", data[3])])


@pytest.mark.detectron2
def test_lviss_class_weights_are_detectron2s(data: list[Any], tmp_path: Path) -> None:
    """Its own table against `image_count` in a file of a few images."""
    pytest.importorskip("detectron2")
    from detectron2.data.datasets import lvis_v1_categories, lvis_v1_category_image_count
    from detectron2.data.detection_utils import get_fed_loss_cls_weights

    counts = {entry["id"]: entry["image_count"] for entry in lvis_v1_category_image_count.LVIS_CATEGORY_IMAGE_COUNT}
    document = json.loads(Path(data[1]).read_text())
    document["categories"] = [
        {"id": entry["id"], "name": entry["name"], "image_count": counts[entry["id"]]}
        for entry in reversed(lvis_v1_categories.LVIS_CATEGORIES)
    ]
    (tmp_path / "part.json").write_text(json.dumps(document))
    ours = torch.from_numpy(class_image_counts([read_coco(tmp_path / "part.json", data[3])])).float() ** 0.5
    assert torch.equal(ours, get_fed_loss_cls_weights("lvis_v1_train", 0.5)) and len(ours) == 1203


@pytest.mark.parametrize(
    "keys, message",
    [
        (["TEST.AUG.MIN_SIZES", ()], r"TEST\.AUG\.MIN_SIZES must be short sides in px, such as \(400, 800\), got \(\)"),
        (["TEST.AUG.MIN_SIZES", (0, 400)], r"TEST\.AUG\.MIN_SIZES must be .*, got \(0, 400\)"),
        (["TEST.PRECISE_BN.NUM_ITER", 0], r"TEST\.PRECISE_BN\.NUM_ITER must be at least 1, got 0"),
        (["SOLVER.LAYER_DECAY", 1.5], r"SOLVER\.LAYER_DECAY must be between 0 and 1, got 1\.5"),
    ],
)
def test_what_cannot_work_is_refused_before_the_folder_is_touched(
    data: list[Any], tmp_path: Path, keys: list[Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_training(config(tmp_path / "out", *data, *OPTIONS, *keys))
    assert not (tmp_path / "out").exists()
