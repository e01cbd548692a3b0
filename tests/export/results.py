"""What two runs of `predict` have written, compared."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask


def assert_same_results(ours: list[dict], theirs: list[dict]) -> None:
    """Of COCO results by matching, as those of one score may change places."""
    assert len(ours) == len(theirs)
    for other in theirs:
        alike = [one for one in ours if all(one[k] == other[k] for k in ("file_name", "image_id", "category_id"))]
        near = [np.abs(np.subtract(one["bbox"], other["bbox"])).max() for one in alike]
        one = alike[int(np.argmin(near))]
        assert one.keys() == other.keys() and min(near) < 2e-2 and abs(one["score"] - other["score"]) < 1e-4
        if "keypoints" in other:
            np.testing.assert_allclose(one["keypoints"], other["keypoints"], rtol=0, atol=1e-2)
        if "segmentation" in other:
            masks = [found["segmentation"] for found in (one, other)]
            union, both = (coco_mask.area(coco_mask.merge(masks, intersect=inside)) for inside in (False, True))
            assert union - both <= max(1, union / 1000)


def assert_same_pixels(ours: Path, theirs: Path) -> None:
    """Of PNGs and JSON that are written where pixels have classes."""
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    for png in (*theirs.glob("sem_seg/*"), *theirs.glob("panoptic/*")):
        one, other = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (ours / png.relative_to(theirs), png))
        assert one.shape == other.shape and (one != other).mean() < 1e-3
    if (theirs / "panoptic.json").exists():
        one, other = (json.loads((folder / "panoptic.json").read_text()) for folder in (ours, theirs))
        assert one["images"] == other["images"] and one["categories"] == other["categories"]
        for segments, known in zip(one["annotations"], other["annotations"], strict=True):
            kinds = [[(s["id"], s["category_id"]) for s in found["segments_info"]] for found in (segments, known)]
            assert kinds[0] == kinds[1]
