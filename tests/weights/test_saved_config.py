"""A checkpoint's own config: what is taken from it, and what is told where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from se_det.config import get_cfg, load_config
from se_det.config.loading import flatten
from se_det.config.provenance import key_source, user_keys
from se_det.errors import ConfigError, WeightsError
from se_det.weights import config_of_checkpoint, read_weights


def checkpoint(path: Path, text: str | None, **more: Any) -> Path:
    content = {"model": {"stem.conv1.weight": torch.zeros(2)}, "engine": "se_det", "iteration": 3, **more}
    torch.save(content if text is None else {**content, "config": text}, path)
    return path


def test_a_checkpoint_gives_its_config(tmp_path: Path) -> None:
    saved = load_config(
        "configs/mask_rcnn_se_r50_fpn.yaml",
        ["MODEL.WEIGHTS", "zoo://other", "MODEL.DEVICE", "cuda:7", "OUTPUT_DIR", "/gone/run", "SEED", 11,
         "DATASETS.TRAIN_JSON", "/gone/train.json", "INPUT.MIN_SIZE_TEST", 320, "SOLVER.STEPS", (7, 8)],
    )  # fmt: skip
    path = checkpoint(tmp_path / "x.pth", saved.dump())
    cfg = config_of_checkpoint(path, ["TEST.IMS_PER_BATCH", "4"])
    expected = dict(flatten(saved))
    expected |= {"MODEL.WEIGHTS": str(path), "TEST.IMS_PER_BATCH": 4}
    expected |= {"MODEL.DEVICE": get_cfg().MODEL.DEVICE, "OUTPUT_DIR": get_cfg().OUTPUT_DIR}
    assert dict(flatten(cfg)) == expected
    assert user_keys(cfg).keys() == {"MODEL.WEIGHTS", "TEST.IMS_PER_BATCH"}
    assert key_source(cfg, "INPUT.FORMAT") is None  # what weights need may still decide it


@pytest.mark.parametrize(
    ("text", "more", "told"),
    [
        (None, {}, "carries no config"),
        ("SEED: 1", {"engine": "detectron2"}, "trained with --engine detectron2"),
        ("SEED: 1\nMODEL:\n  WARP: 2\n  GATE:\n    SPIN: 1\n", {}, r"does not know: MODEL\.WARP, MODEL\.GATE\.SPIN\."),
        ("SEED: many", {}, r"x\.pth: SEED must be a int, got 'many'"),
        ("PLUGINS: [mine.py]", {}, r"x\.pth: PLUGINS says .* mine\.py"),
    ],
)
def test_what_is_none_is_told_in_a_sentence(tmp_path: Path, text: str | None, more: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config_of_checkpoint(checkpoint(tmp_path / "x.pth", text, **more))


def test_a_classifier_is_told_apart(tmp_path: Path) -> None:
    about = {
        "name": "se_resnet50", "num_classes": 2, "options": {}, "image_size": 224, "crop_ratio": 0.875,
        "input_format": "RGB", "pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="is a classifier's checkpoint"):
        config_of_checkpoint(checkpoint(tmp_path / "x.pth", "SEED: 1", architecture=about))


@pytest.mark.parametrize("stored", [{"car": 2.0}, {"car": "much"}, {1: 0.5}, [0.5], {"car": float("nan")}])
def test_thresholds_that_are_none_are_refused(tmp_path: Path, stored: Any) -> None:
    with pytest.raises(WeightsError, match="damaged: what it says under 'thresholds'"):
        read_weights(checkpoint(tmp_path / "x.pth", "SEED: 1", thresholds=stored))
    sound = {"car": 0.25, "owl": None}
    assert read_weights(checkpoint(tmp_path / "x.pth", "SEED: 1", thresholds=sound)).extra["thresholds"] == sound
