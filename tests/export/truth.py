"""Ground truth for `--eval-only`: what a checkpoint finds, moved a little, so that no metric is 0 or 100."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from se_det.data.pixel_labels import read_panoptic_png
from se_det.inference import Predictor

from .batches import picture

SIZES = [(96, 128), (70, 90), (64, 64)]
POINTS, SKELETON = ["head", "left", "right", "tail"], [[1, 2], [1, 3]]
PIXELS = ["things", "sky", "sea", "sand", "wood"]
THINGS = [{"id": 10 + k, "name": n, "keypoints": POINTS, "skeleton": SKELETON}
          for k, n in enumerate(["ant", "bee", "cat"])]  # fmt: skip


def write_data(folder: Path, found: Predictor) -> list[str]:
    """Images, whose ground truth is what a checkpoint finds, moved a little; as config keys."""
    content = {"images": [], "annotations": [], "categories": THINGS}
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number, (height, width) in enumerate(SIZES):
        image, name = picture(height, width, number), f"{number}.png"
        cv2.imwrite(str(folder / "images" / name), image[:, :, ::-1])
        content["images"].append({"id": number + 1, "file_name": name, "height": height, "width": width})
        result = found(image[:, :, ::-1])
        labels = np.zeros((height, width), np.uint8) if result.sem_seg is None else result.sem_seg.copy()
        labels[: height // 4] = 1
        cv2.imwrite(str(folder / "labels" / name), labels)
        for at in range(0, len(result.scores), 2):
            x0, y0, x1, y1 = map(float, result.boxes[at])
            box = [x0, y0, (x1 - x0) * 0.9, (y1 - y0) * 0.9]
            own = result.keypoints[at][:, :2] - 0.5 if result.keypoints is not None else np.full((4, 2), 5.0)
            shape = [[x0, y0, x1, y0, x1, y1]]
            if result.masks is not None and result.masks[at].any():
                shape = coco_mask.encode(np.asfortranarray(result.masks[at].astype(np.uint8)))
                shape["counts"] = shape["counts"].decode()
            content["annotations"].append({
                "id": len(content["annotations"]) + 1, "image_id": number + 1, "iscrowd": 0, "bbox": box,
                "category_id": 10 + int(result.classes[at]) % 3, "area": box[2] * box[3],
                "segmentation": shape, "num_keypoints": 4,
                "keypoints": [float(v) for x, y in own for v in (x + 1, y, 2)],
            })  # fmt: skip
    (folder / "v.json").write_text(json.dumps(content))
    keys = ["DATASETS.VAL_JSON", str(folder / "v.json"), "DATASETS.VAL_IMAGES", str(folder / "images")]
    if found.cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        labels = ["DATASETS.VAL_SEM_SEG", str(folder / "labels"), "DATASETS.SEM_SEG_CLASSES", str(PIXELS)]
        return [*keys[2:], *labels]
    return keys


def write_panoptic_truth(folder: Path, drawn: Path) -> list[str]:
    """What `predict` has written, 3 px aside; as config keys."""
    (folder / "panoptic").mkdir()
    for png in (drawn / "panoptic").iterdir():
        cv2.imwrite(str(folder / "panoptic" / png.name), np.roll(cv2.imread(str(png)), 3, 1))
    content = json.loads((drawn / "panoptic.json").read_text())
    for entry in content["annotations"]:
        numbers = read_panoptic_png(folder / "panoptic" / entry["file_name"])
        for segment in entry["segments_info"]:
            segment["area"] = int((numbers == segment["id"]).sum())
    (folder / "panoptic.json").write_text(json.dumps(content))
    return [
        "DATASETS.VAL_PANOPTIC_JSON",
        str(folder / "panoptic.json"),
        "DATASETS.VAL_PANOPTIC",
        str(folder / "panoptic"),
    ]
