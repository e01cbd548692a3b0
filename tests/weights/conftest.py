"""A zoo of the tests' own."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from file_server import FileServer

from se_det.weights import zoo

RGB = {"format": "RGB", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


@pytest.fixture
def add_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`add_entry(name, tensors, **fields)` makes an entry whose file a local server has; returns the file's name."""
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    entries = dict(zoo._entries())
    monkeypatch.setattr(zoo, "_entries", lambda: entries)
    with FileServer().running() as server:

        def add(name: str, tensors: dict[str, torch.Tensor], *, stride: bool | None = False, pool: str | None = "pad1",
                relu: bool | None = None, image: dict = RGB, family: str = "se_det") -> str:  # fmt: skip
            folder = tmp_path / f"entry-{name}"
            folder.mkdir()
            torch.save(tensors, folder / "file.pth")
            content = (folder / "file.pth").read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            file_name = f"{name.replace('.', '_')}-{digest[:8]}.pth"
            server.files[file_name] = content
            fields = {
                "url": f"{server.url}/{file_name}", "sha256": digest, "architecture": name.split(".")[0],
                "stride_in_1x1": stride, "stem_pool": pool, "branch_relu": relu,
                "reports": [{"top1": 70.0, "top5": 90.0, "crop": 224, "source": "test"}],
            }  # fmt: skip
            head = {"source": "https://example.org", "license": "none", "family": family, "input": image}
            (folder / "x.yaml").write_text(yaml.safe_dump({**head, "entries": {name: fields}}))
            entries.update(zoo.read_entries(folder))
            return file_name

        add.server = server
        yield add


# Of a Mask R-CNN that is built and run in a moment.
TINY_DETECTOR = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone", "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16, "MODEL.RESNETS.STEM_OUT_CHANNELS": 8, "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"], "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"], "MODEL.RPN.POST_NMS_TOPK_TEST": 50,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads", "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 3, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.02,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC": 2, "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7, "MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16, "INPUT.MIN_SIZE_TEST": 96, "DATASETS.TEST": ["coco_2017_val"],
}  # fmt: skip


@pytest.fixture
def add_detector(tmp_path: Path, add_entry):
    """`add_detector(name, tensors, classes)` makes an entry of a trained detector as Detectron2 publishes them: a
    pickle of NumPy's arrays, its md5 in its name, on a local server. Returns the file's path there and its content."""

    def add(name: str, tensors: dict[str, torch.Tensor], classes: dict[int, str], **keys) -> tuple[str, bytes]:
        arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
        content = pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"})
        path = f"COCO/{name}/137/model_final_{hashlib.md5(content).hexdigest()[:6]}.pkl"
        add_entry.server.files[path] = content
        folder = tmp_path / f"detector-{name}"
        (folder / "classes").mkdir(parents=True)
        (folder / "classes" / "few.yaml").write_text(yaml.safe_dump(classes, sort_keys=False))
        tree = {
            "source": "https://example.org", "license": "none", "family": "detectron2", "classes": "few",
            "url": f"{add_entry.server.url}/", "parts": {"tiny": {**TINY_DETECTOR, **keys}},
            "entries": {name: {"file": path, "parts": ["tiny"], "reported": {"bbox/AP": 40.2}}},
        }  # fmt: skip
        (folder / "x.yaml").write_text(yaml.safe_dump(tree))
        zoo._entries().update(zoo.read_entries(folder))
        return path, content

    add.server, add.folder = add_entry.server, tmp_path
    return add
