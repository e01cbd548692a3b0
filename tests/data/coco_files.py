"""Small COCO data sets on disk, sound or broken on purpose."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from se_det.data import CocoDataset, read_coco

HEIGHT, WIDTH = 40, 50


def rectangle(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A mask of rows 3..8 and columns 4..19."""
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[3:9, 4:20] = 1
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


# Sparse ids, not in order; polygons, both forms of RLE, a crowd, an image with a crowd only, one with nothing, and
# annotations that are not sorted by image.
CONTENT: dict[str, Any] = {
    "images": [
        {"id": 5, "file_name": "five.png", "height": HEIGHT, "width": WIDTH},
        {"id": 1, "file_name": "sub/one.png", "height": WIDTH, "width": HEIGHT},
        {"id": 900000000000, "file_name": "empty.png", "height": HEIGHT, "width": WIDTH},
        {"id": 7, "file_name": "crowd.png", "height": HEIGHT, "width": WIDTH},
    ],
    "categories": [{"id": 17, "name": "owl"}, {"id": 3, "name": "cup"}],
    "annotations": [
        {
            "id": 10, "image_id": 1, "category_id": 17, "bbox": [1, 2, 30, 40], "area": 12, "iscrowd": 0,
            "segmentation": [[1, 2, 30, 4, 5, 36.5], [1.5, 2, 3, 4, 15, 7.5, 1, 1]],
        },
        {
            "id": 2, "image_id": 5, "category_id": 3, "bbox": [1.25, 2, 3, 4], "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [1000, 20, 980]},
        },
        {
            "id": 11, "image_id": 5, "category_id": 3, "bbox": [4, 3, 16, 6], "area": 96,
            "segmentation": compressed(rectangle()),
        },
        {
            "id": 4, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "area": 20, "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 20, 1980]},
        },
        {
            "id": 12, "image_id": 5, "category_id": 17, "bbox": [20, 10, 10, 20], "area": 100, "iscrowd": 0,
            "segmentation": [[20, 10, 30, 10, 30, 30]],
        },
    ],
}  # fmt: skip


def write_json(folder: Path, content: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def write_images(folder: Path, content: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    for image in content["images"]:
        path = folder / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (image["height"], image["width"], 3), np.uint8)).save(path)


def small_set(folder: Path, content: dict[str, Any] | None = None) -> CocoDataset:
    """The content above, or another, with its images."""
    content = CONTENT if content is None else content
    write_images(folder / "images", content)
    return read_coco(write_json(folder, content), folder / "images")


def changed(*path: Any, to: Any = None, remove: bool = False) -> dict[str, Any]:
    """A copy of the content with one value changed or removed."""
    content = copy.deepcopy(CONTENT)
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    if remove:
        del holder[path[-1]]
    else:
        holder[path[-1]] = to
    return content
