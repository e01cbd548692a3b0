"""What each part measures, on tiny sizes; how fast is not a test's business."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from se_det.backbones import create_model
from se_det.benchmarks import backbone, gates
from se_det.benchmarks.backbone import compare_backbones
from se_det.benchmarks.detector import compare_detectors
from se_det.benchmarks.evaluation import compare_evaluations
from se_det.benchmarks.gates import FORMULA, LAYOUTS, PLAIN, compare_gates
from se_det.benchmarks.loader import compare_jitter, compare_loaders
from se_det.benchmarks.pretrain import compare_pretraining
from se_det.errors import ConfigError
from tests.training.small_detector import draw

PRETRAINING = {"size": 32, "batch": 4, "workers": 0, "batches": 2, "repeat": 1, "device": "cpu"}


def test_gates_take_turns_with_the_plain_network_alone(in_process, tiny_host, monkeypatch):
    sizes = {"inference": (1, 64, 96), "training": (2, 64, 64), "classifier": (4, 32, 32)}
    monkeypatch.setattr(gates, "PARTS", sizes)
    compared = list(compare_gates("tiny", list(sizes), gates=["se", "cbam"], repeat=1, device="cpu"))
    pairs = [("se", PLAIN), ("cbam", PLAIN), (FORMULA, PLAIN)]
    assert [tuple(reversed(c.seconds)) for c in compared] == pairs * (len(LAYOUTS) + 2)
    assert [c.amount for c in compared] == [1] * 9 + [2] * 3 + [4] * 3
    assert all(len(c.rows()) == 2 and c.baseline == PLAIN for c in compared)


def test_the_formula_is_measured_only_beside_se(in_process, tiny_host, monkeypatch):
    monkeypatch.setattr(gates, "PARTS", {"inference": (1, 32, 32)})
    compared = compare_gates("tiny", ["inference"], gates=["cbam"], repeat=1, device="cpu")
    assert {way for c in compared for way in c.seconds} == {PLAIN, "cbam"}


def test_backbones_are_compared_with_timms(in_process, monkeypatch, tmp_path):
    pytest.importorskip("timm")
    monkeypatch.setattr(backbone, "BATCHES", (1, 2))
    monkeypatch.setattr(backbone, "IMAGES", 3)  # of a turn: 3 x 1 and 1 x 2
    compared = list(compare_backbones("resnet18", size=32, repeat=1, device="cpu", weights=str(tmp_path / "w.pth")))
    assert [list(c.seconds) for c in compared] == [
        ["timm", "se_det"], ["timm, channels_last", "se_det, channels_last"],
        ["timm", "se_det"], ["timm, channels_last", "se_det, channels_last"],
        ["timm", "se_det"],
    ]  # fmt: skip
    assert [c.amount for c in compared] == [3, 3, 2, 2, 2]


def test_a_backbone_whose_results_differ_is_refused(in_process, monkeypatch, tmp_path):
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(backbone, "BATCHES", (1,))
    other = create_model("resnet18", num_classes=1000)
    monkeypatch.setattr(timm, "create_model", lambda name: other.train())
    # Ours has the same weights, and timm's stand-in doubles what it finds.
    other.register_forward_hook(lambda module, given, result: result * 2)
    with pytest.raises(ConfigError, match="differ"):
        list(compare_backbones("resnet18", size=32, repeat=1, device="cpu", weights=str(tmp_path / "w.pth")))
    with pytest.raises(ConfigError, match="--model vgg16 is not in both libraries"):
        list(compare_backbones("vgg16", size=32, repeat=1, device="cpu", weights=""))


def small(folder: Path) -> list:
    json, images = draw(folder, 2)
    return ["DATASETS.VAL_JSON", json, "DATASETS.VAL_IMAGES", images, "DATASETS.TRAIN_JSON", json,
            "DATASETS.TRAIN_IMAGES", images, "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TRAIN", (64,),
            "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 80, "SOLVER.IMS_PER_BATCH", 2,
            "MODEL.RPN.POST_NMS_TOPK_TEST", 50, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16,
            "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
            "MODEL.ROI_MASK_HEAD.CONV_DIM", 16]  # fmt: skip


def test_detectors_are_compared_with_torchvisions(in_process, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # Detectron2 takes longer: see the slow test
    parts, state = ["inference", "training"], str(tmp_path / "state.pth")
    config = "configs/mask_rcnn_se_r18_fpn.yaml"
    inference, training = compare_detectors(config, small(tmp_path), parts, images=2, repeat=1, state=state)
    others = "torchvision (another network: ResNet-18 without gates)"
    assert list(inference.seconds) == ["se_det", "se_det, bfloat16", others]
    assert list(training.seconds) == ["se_det", others]
    assert (inference.baseline, inference.amount, training.amount) == ("se_det", 2, 2)
    assert "torchvision 0" not in inference.name and ", torchvision " in inference.name  # it found something


@pytest.mark.slow
@pytest.mark.detectron2
def test_detectors_are_compared_with_detectron2s(in_process, tmp_path):
    pytest.importorskip("detectron2")
    parts, state = ["inference", "training"], str(tmp_path / "state.pth")
    config = "configs/mask_rcnn_se_r18_fpn.yaml"
    for compared in compare_detectors(config, small(tmp_path), parts, images=2, repeat=1, state=state):
        assert list(compared.seconds)[:3] == ["detectron2", "detectron2, memory kept", "se_det"]
        assert compared.baseline == "detectron2"


@pytest.mark.slow
def test_pretraining_is_compared_with_timms_loader(tiny_host, pictures):
    pytest.importorskip("timm")
    loading, training = compare_pretraining(str(pictures), "se_tiny", **PRETRAINING)
    assert list(loading.seconds) == ["timm's loader", "loader"] and loading.baseline == "timm's loader"
    assert list(training.seconds) == ["steps", "steps and loader"] and training.baseline == "steps"
    for compared in (loading, training):
        assert compared.amount == 8 and all(len(taken) == 1 for taken in compared.seconds.values())
    with pytest.raises(ConfigError, match="--batch 99 is more than the 18 images"):
        list(compare_pretraining(str(pictures), "se_tiny", **{**PRETRAINING, "batch": 99}))


def test_lists_are_loaded_without_timm(tiny_host, pictures, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("ash/0.jpg 0\nbirch/0.jpg 1\nbirch/1.jpg 1\nash/1.jpg 0\n")
    loading, _ = compare_pretraining(str(listed), "se_tiny", **PRETRAINING, root=str(pictures))
    assert list(loading.seconds) == ["loader"] and loading.baseline == "loader"


@pytest.mark.slow
def test_loaders_and_evaluations_have_their_peers(tmp_path):
    json, images = draw(tmp_path, 2)
    (loading,) = compare_loaders(json, images, short_side=64, max_size=80, masks=True, count=2, repeat=1)
    assert list(loading.seconds)[:2] == ["INPUT.RESIZE pil", "INPUT.RESIZE fast"]
    jittered = list(compare_jitter(json, images, size=64, short_side=48, max_size=80, masks=True, count=2, repeat=1))
    assert [list(compared.seconds)[2:4] for compared in jittered] == [
        ["large-scale jitter", "large-scale jitter, copy-paste"]
    ] * 2
    for compared in compare_evaluations(images=20, tasks=["bbox", "segm"], repeat=1):
        assert list(compared.seconds)[:2] == ["se_det", "pycocotools"]
        assert all(math.isfinite(row["time_ratio"]) for row in compared.rows())
