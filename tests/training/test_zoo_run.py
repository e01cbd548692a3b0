"""A whole run that starts from an entry of the zoo, is resumed without it, and evaluated from its checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_run import config, draw

from se_det.backbones import create_model
from se_det.config import load_config
from se_det.errors import ConfigError
from se_det.training.checkpoint import load_checkpoint
from se_det.training.run import run_evaluation, run_training
from se_det.weights import zoo


@pytest.fixture
def legacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`zoo://se_resnet18.legacy`, which pools the stem as Caffe does and takes BGR; its file, in the cache."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("SE_DET_CACHE", str(cache))
    torch.manual_seed(0)
    torch.save(create_model("se_resnet18", stem_pool="ceil", norm="GN").state_dict(), cache / "file")
    digest = hashlib.sha256((cache / "file").read_bytes()).hexdigest()
    file = (cache / "file").rename(cache / f"legacy-{digest[:8]}.pth")
    fields: dict[str, Any] = {
        "url": f"http://127.0.0.1:9/{file.name}", "sha256": digest[:8], "architecture": "se_resnet18",
        "stem_pool": "ceil", "reports": [], "source": "test", "license": "none", "family": "se_det",
        "input": {"format": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1, 1, 1]},
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"entries": {"se_resnet18.legacy": fields}}))
    entries = zoo.read_entries(tmp_path)
    monkeypatch.setattr(zoo, "_entries", lambda: entries)
    return file


@pytest.mark.slow
def test_from_the_zoo_to_a_resumed_run_to_its_evaluation(legacy: Path, tmp_path: Path) -> None:
    train, images = draw(tmp_path / "train", 4)
    val = ["DATASETS.VAL_JSON", train, "DATASETS.VAL_IMAGES", images]
    keys = ["DATASETS.TRAIN_JSON", train, "DATASETS.TRAIN_IMAGES", images, *val]
    start = ["MODEL.WEIGHTS", "zoo://se_resnet18.legacy"]
    out = tmp_path / "out"
    run_training(config(out, *keys, *start, "SOLVER.MAX_ITER", 2))
    saved = load_config(out / "config.yaml")
    assert (saved.MODEL.RESNETS.STEM_POOL, saved.INPUT.FORMAT, saved.MODEL.PIXEL_STD) == ("ceil", "BGR", [1.0] * 3)
    assert "zoo://se_resnet18.legacy sets MODEL.RESNETS.STEM_POOL ceil (was pad1)" in (out / "log.txt").read_text()
    legacy.unlink()
    run_training(config(out, *keys, *start, "SOLVER.MAX_ITER", 4), resume=True)
    final = load_checkpoint(out / "model_final.pth")
    assert final["iteration"] == 4
    metrics = run_evaluation(config(tmp_path / "eval", *val, "MODEL.WEIGHTS", str(out / "model_final.pth")))
    assert metrics.keys() == {"bbox", "segm"}
    with pytest.raises(ConfigError, match=r"STEM_POOL is pad1 \(the command line\), and they need ceil"):
        run_evaluation(config(tmp_path / "eval", *val, "MODEL.WEIGHTS", str(out / "model_final.pth"),
                              "MODEL.RESNETS.STEM_POOL", "pad1"))  # fmt: skip
