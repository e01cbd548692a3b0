"""Small COCO files, a data set that stands for the data room's, and pycocotools as the other opinion."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HEIGHT, WIDTH = 120, 160
CATEGORIES = [{"id": 90, "name": "star"}, {"id": 3, "name": "ring"}, {"id": 7, "name": "cross"}]


@dataclass
class Image:
    id: Any
    height: int
    width: int


class Dataset:
    """The part of `se_det.data.coco.CocoDataset` that the evaluation uses."""

    def __init__(self, json_path: str | Path) -> None:
        self.json_path = Path(json_path)
        content = json.loads(self.json_path.read_text())
        self._images = [Image(i["id"], i["height"], i["width"]) for i in content["images"]]
        categories = sorted(content["categories"], key=lambda category: category["id"])
        self.category_ids = tuple(category["id"] for category in categories)
        self.category_names = tuple(category["name"] for category in categories)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image:
        return self._images[index]


def random_content(*, images: int = 12, seed: int = 0) -> dict[str, Any]:
    """Rectangles as polygons, some as RLE crowds; objects of all three size classes; one image is empty."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {"images": [], "categories": CATEGORIES, "annotations": []}
    for image_id in rng.permutation(np.arange(1, images + 1)).tolist():
        image = {"id": image_id, "height": HEIGHT, "width": WIDTH, "file_name": f"{image_id}.png"}
        content["images"].append(image)
        for _ in range(0 if image_id == 1 else rng.integers(1, 6)):
            w, h = rng.uniform(8, 110, size=2).round(2).tolist()
            x, y = round(float(rng.uniform(0, WIDTH - w)), 2), round(float(rng.uniform(0, HEIGHT - h)), 2)
            crowd = int(rng.random() < 0.15)
            segmentation: Any = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            if crowd:
                segmentation = uncompressed(mask_tools.decode(rle_of(segmentation)))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": CATEGORIES[rng.integers(0, 3)]["id"],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                    "segmentation": segmentation,
                }
            )
    return content


def random_outputs(content: dict[str, Any], *, seed: int = 1) -> tuple[list[dict], list[dict]]:
    """Samples and a detector's outputs: displaced truths with many equal scores, some of a wrong class, some noise."""
    rng = np.random.default_rng(seed)
    ids = sorted(category["id"] for category in content["categories"])
    samples, outputs = [], []
    for image in content["images"]:
        boxes, scores, classes = [], [], []
        for truth in (a for a in content["annotations"] if a["image_id"] == image["id"]):
            for _ in range(rng.integers(0, 4)):
                x, y, w, h = truth["bbox"]
                dx, dy, dw, dh = rng.normal(0, 0.08, size=4) * (w, h, w, h)
                boxes.append([x + dx, y + dy, x + dx + w + dw, y + dy + h + dh])
                scores.append(round(float(rng.random()), 1))
                right = ids.index(truth["category_id"])
                classes.append(right if rng.random() < 0.8 else int(rng.integers(0, 3)))
        limits = [[0, 0, 0, 0], [WIDTH, HEIGHT, WIDTH, HEIGHT]]
        found = np.clip(np.array(boxes, dtype=np.float32).reshape(-1, 4), *limits)
        masks = np.zeros((len(found), HEIGHT, WIDTH), dtype=bool)
        for mask, (x0, y0, x1, y1) in zip(masks, np.rint(found).astype(int)):
            mask[y0:y1, x0:x1] = True
        samples.append({"image_id": image["id"], "height": HEIGHT, "width": WIDTH})
        outputs.append(
            {
                "instances": {
                    "pred_boxes": torch.tensor(found, dtype=torch.float32),
                    "scores": torch.tensor(scores, dtype=torch.float32),
                    "pred_classes": torch.tensor(classes, dtype=torch.int64),
                    "pred_masks": torch.tensor(masks),
                }
            }
        )
    return samples, outputs


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def rle_of(polygons: list[list[float]]) -> dict:
    return mask_tools.merge(mask_tools.frPyObjects(polygons, HEIGHT, WIDTH))


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = np.concatenate(([0], mask.flatten(order="F"), [2]))
    starts = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate(([0], starts))).tolist()}


def pycocotools_says(json_path: Path, results: list[dict], task: str) -> tuple[list[float], dict[str, float]]:
    """The twelve numbers and the AP per class name, in percent, by pycocotools' own COCOeval."""
    results = [{k: v for k, v in r.items() if task == "bbox" or k != "bbox"} for r in json.loads(json.dumps(results))]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(json_path))
        protocol = COCOeval(truth, truth.loadRes(results), task)
        protocol.evaluate()
        protocol.accumulate()
        protocol.summarize()
    per_class = {}
    for index, category_id in enumerate(protocol.params.catIds):
        precision = protocol.eval["precision"][:, :, index, 0, 2]
        found = precision[precision > -1]
        per_class[truth.cats[category_id]["name"]] = 100 * found.mean() if found.size else float("nan")
    return [100 * x if x > -1 else float("nan") for x in protocol.stats], per_class
