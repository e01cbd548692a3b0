"""A data set with all that a preview may stumble over: many classes, names of any letters, tiny and huge objects."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

NAMES = ("owl", "Zürich <b>&amp;", "猫と犬", "кошка", "'><script>alert(1)</script>", "a " + "very " * 30 + "long name")


def odd_set(root: Path, *, images: int = 10, classes: int = 300, val: int = 0, seed: int = 0) -> Path:
    """COCO in `root`: `train`, and `val` where it is to have images. Of every four images one has no object; the
    others have one as large as the image, one of 1.5 px, some polygons and an RLE."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", images), ("val", val)):
        if not count:
            continue
        (root / split).mkdir(parents=True)
        content = {"images": [], "annotations": [], "categories": []}
        for at in range(classes):
            content["categories"].append({"id": at + 1, "name": f"{NAMES[at % len(NAMES)]} {at}"})
        for at in range(count):
            width, height = (int(side) for side in rng.integers(80, 240, 2))
            name = f"猫 {split} & <{at}>.png"
            _write(root / split / name, rng.integers(0, 256, (height, width, 3), np.uint8))
            content["images"].append({"id": at + 1, "file_name": name, "width": width, "height": height})
            for annotation in _annotations(rng, width, height) if at % 4 else ():
                number = len(content["annotations"]) + 1
                category = 1 + (number * 7) % classes
                content["annotations"].append({"id": number, "image_id": at + 1, "category_id": category, **annotation})
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def _write(path: Path, pixels: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())  # imwrite takes no such names on every system


def _annotations(rng: np.random.Generator, width: int, height: int) -> list[dict]:
    found = [_polygon([0, 0, width, 0, width, height, 0, height]), _polygon([40, 40, 41.5, 40, 41.5, 41.5, 40, 41.5])]
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.integers(0, 50, 2).tolist()
        found.append(_polygon([x, y, x + 25, y + 4, x + 14, y + 25]))
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[10:30, 5:45] = 1
    rle = coco_mask.encode(mask)
    segmentation = {"size": [height, width], "counts": rle["counts"].decode()}
    return [*found, {"bbox": [5, 10, 40, 20], "area": 800, "iscrowd": 0, "segmentation": segmentation}]


def _polygon(xy: list[float]) -> dict:
    xs, ys = xy[::2], xy[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    area = abs(sum(x * v - u * y for x, y, u, v in zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1]))) / 2
    return {"bbox": box, "area": area, "iscrowd": 0, "segmentation": [xy]}
