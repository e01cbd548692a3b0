"""A detector that takes a third of a millisecond, and images and shards for it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from se_det.config import get_cfg
from se_det.detection import build_detector
from se_det.detection.rcnn import Detector
from se_det.detection.registry import META_ARCHITECTURES
from se_det.inference import Predictor
from se_det.inference.collections import CollectionSummary, predict_collection

SIDE = 32
NAMES = ("cup", "owl")
IDS = (3, 9)


class ToyDetector(Detector):
    """Two objects in each image: where two filters answer most. Everything depends on the weights and on all pixels."""

    def __init__(self, **shared: Any) -> None:
        super().__init__(backbone=nn.Conv2d(3, 2, 8, stride=4), **shared)
        self.backbone.size_divisibility = 1
        nn.init.normal_(self.backbone.weight, std=0.002)  # scores that differ

    def detect(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        x, _ = self.batch([sample["image"] for sample in samples])
        heat = self.backbone(x).flatten(2).sigmoid()
        scores, at = heat.max(2)
        columns = (x.shape[3] - 8) // 4 + 1
        left, top = at % columns * 4.0, at // columns * 4.0
        boxes = torch.stack([left, top, left + 8 * scores, top + 8 * scores], 2)
        order = scores.argsort(1, descending=True)
        return [
            {"instances": {"pred_boxes": b[o], "scores": s[o], "pred_classes": o}}
            for b, s, o in zip(boxes, scores, order)
        ]


@META_ARCHITECTURES.register(name="ToyDetector")
def toy_detector(cfg: Any) -> ToyDetector:
    return ToyDetector(pixel_mean=cfg.MODEL.PIXEL_MEAN, pixel_std=cfg.MODEL.PIXEL_STD)


def weights(path: Path, seed: int = 0) -> Path:
    """A checkpoint of the toy, with its config."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ToyDetector"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"  # which it leaves alone
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.INPUT.MIN_SIZE_TEST = SIDE
    cfg.TEST.IMS_PER_BATCH = 4
    torch.manual_seed(seed)
    categories = [{"id": i, "name": n} for i, n in zip(IDS, NAMES)]
    torch.save({"model": build_detector(cfg).state_dict(), "config": cfg.dump(), "categories": categories}, path)
    return path


def picture(number: int) -> bytes:
    """The JPEG of that number, another for each."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    pixels = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def shard(path: Path, numbers: range, *, bad: int | None = None, mode: str = "w") -> Path:
    """A tar of pictures with a JSON beside each, of which `bad` is no image."""
    with tarfile.open(path, mode) as tar:
        for number in numbers:
            for suffix, data in ((".jpg", picture(number)), (".json", b"{}")):
                data = b"no image" if number == bad and suffix == ".jpg" else data
                info = tarfile.TarInfo(f"{number:06d}{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def folder(path: Path, numbers: range) -> Path:
    """A folder of pictures."""
    path.mkdir(parents=True)
    for number in numbers:
        (path / f"{number:06d}.jpg").write_bytes(picture(number))
    return path


def rows(output: Path) -> list[dict[str, Any]]:
    """Every row of every part, by image; a torn one is an error."""
    found = []
    for path in sorted((output / "parts").glob("*.jsonl")):
        text = path.read_text()
        assert not text or text[-1] == "\n", path
        found += [json.loads(line) for line in text.splitlines()]
    return sorted(found, key=lambda row: row["image"])


def detect(
    checkpoint: Path, inputs: list[str], output: Path, share: tuple[int, int] = (0, 1), part: int = 50, **how: Any
) -> CollectionSummary:
    """A call, as a process of its own makes it."""
    torch.set_num_threads(1)
    return predict_collection(Predictor(checkpoint), inputs, output, share=share, images_per_part=part, **how)
