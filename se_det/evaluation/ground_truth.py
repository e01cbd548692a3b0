"""The ground truth of an evaluation: a COCO JSON read again, completed and renumbered for the COCO protocol."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_tools

from ..data.class_names import distinct_names
from ..errors import DataError

logger = logging.getLogger(__name__)


class GroundTruth:
    """What detections are compared with.

    Images and categories are renumbered from 1, in the order of their own ids, which may be sparse or texts such as
    "0012". The order is kept because it decides between equal scores.

    Missing `iscrowd` counts as 0. A missing `area` is the area of the segmentation, or of the box without one.

    Attributes:
        annotations: those of the file, in its order, each with `image_id` and `category_id` (numbers), `bbox` XYWH px,
            `area`, `iscrowd`, for masks `segmentation`, an RLE, and `mask_unknown`, whether that is only its box, for
            keypoints `keypoints`, 3 K numbers, and `num_keypoints`.
        image_numbers: the file's image id -> number, from 1.
        category_numbers: the file's category id -> number, from 1; the class index is one less.
        class_labels: a name per class index; a name that two categories share is followed by the category's id.
        json_path: the file.
        sigmas: of the keypoints, see `oks`; empty without.
    """

    def __init__(
        self,
        json_path: str | Path,
        *,
        image_ids: Sequence[Hashable],
        category_ids: Sequence[int],
        category_names: Sequence[str],
        masks: bool,
        sigmas: Sequence[float] = (),
    ) -> None:
        """Read `json_path`, which `read_coco` has found to be sound.

        Args:
            json_path: COCO annotations.
            image_ids: the images to evaluate on; annotations of others are left out.
            category_ids: the file's category ids, ascending.
            category_names: their names, in the same order.
            masks: whether segmentations are compared too. What is found in the box of an annotation without one is then
                not counted, as in a crowd.
            sigmas: one for each keypoint, where keypoints are compared too. Where an annotation has none labelled, one
                detection of it is not counted.

        Raises:
            DataError: no annotation has a segmentation although `masks`, a segmentation is not of its image's size,
                or an `area` is not a number.
        """
        self.json_path = Path(json_path)
        self.sigmas = tuple(sigmas)
        in_order = sorted(image_ids, key=lambda image_id: (isinstance(image_id, str), image_id))
        self.image_numbers = {image_id: number for number, image_id in enumerate(in_order, 1)}
        self.category_numbers = {category_id: number for number, category_id in enumerate(category_ids, 1)}
        self.class_labels = distinct_names(category_names, category_ids)

        content = json.loads(Path(self.json_path).read_bytes())
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        annotations = [a for a in content["annotations"] if a["image_id"] in self.image_numbers]
        if masks:
            self._check_segmentations(annotations)
        self.annotations = [
            self._complete(annotation, sizes[annotation["image_id"]], masks) for annotation in annotations
        ]
        self._of_image: dict[int, list[dict[str, Any]]] = {}
        for annotation in self.annotations:
            self._of_image.setdefault(annotation["image_id"], []).append(annotation)

    def annotations_of(self, image_id: Hashable) -> list[dict[str, Any]]:
        """The annotations of the image of that id."""
        return self._of_image.get(self.image_numbers[image_id], [])

    def _complete(self, annotation: dict, size: tuple[int, int], masks: bool) -> dict[str, Any]:
        x, y, width, height = map(float, annotation["bbox"])
        area = annotation.get("area")
        rle = None
        if annotation.get("segmentation") and (masks or area is None):
            rle = self._rle(annotation, size)
        if area is None:
            area = mask_tools.area(rle) if rle else width * height
        elif not isinstance(area, (int, float)) or not math.isfinite(area):
            raise DataError(
                f"{self.json_path}: annotation {annotation['id']} has area {area!r}, which is not a number. "
                "Correct it, or remove the key to have it computed."
            )
        completed = {
            "image_id": self.image_numbers[annotation["image_id"]],
            "category_id": self.category_numbers[annotation["category_id"]],
            "bbox": [x, y, width, height],
            "area": float(area),
            "iscrowd": int(bool(annotation.get("iscrowd", 0))),
        }
        if masks:
            unknown = rle is None
            if unknown:
                (rle,) = mask_tools.frPyObjects([_corners(x, y, width, height)], *size)
                rle = {"size": list(size), "counts": _as_text(rle["counts"])}
            completed |= {"segmentation": rle, "mask_unknown": unknown}
        if self.sigmas:
            points = list(annotation.get("keypoints") or [0] * (3 * len(self.sigmas)))
            count = annotation.get("num_keypoints", sum(v > 0 for v in points[2::3]))
            completed |= {"keypoints": points, "num_keypoints": count}
        return completed

    def _rle(self, annotation: dict, size: tuple[int, int]) -> dict[str, Any]:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            rle = mask_tools.merge(mask_tools.frPyObjects(segmentation, *size))
        elif isinstance(segmentation["counts"], list):
            rle = mask_tools.frPyObjects(segmentation, *size)
        else:
            rle = segmentation
        # Two masks of different sizes would be compared as if nothing overlapped.
        if tuple(rle["size"]) != tuple(size):
            raise DataError(
                f"{self.json_path}: annotation {annotation['id']} has an RLE of size {list(rle['size'])}, but its "
                f"image {annotation['image_id']} is {list(size)} (height, width). Make the two agree."
            )
        return {"size": list(rle["size"]), "counts": _as_text(rle["counts"])}

    def _check_segmentations(self, annotations: list[dict]) -> None:
        without = [annotation["id"] for annotation in annotations if not annotation.get("segmentation")]
        if without and len(without) == len(annotations):
            raise DataError(
                f"{self.json_path}: none of its {len(annotations)} annotations has a segmentation, so masks cannot be "
                "evaluated on this file. Evaluate boxes only (MODEL.MASK_ON False), or add the segmentations."
            )
        if without:
            logger.warning(
                "%s: %d of %d annotations have no segmentation (the first is annotation %s): in mask AP, what is found "
                "in their boxes is not counted.", self.json_path, len(without), len(annotations), without[0],
            )  # fmt: skip


def is_ignored(annotation: dict[str, Any], task: str) -> bool:
    """Whether detections in an annotation of `GroundTruth` do not count: of a crowd, for "segm" an unknown mask, for
    "keypoints" one without labelled keypoints."""
    unknown = (task == "segm" and annotation["mask_unknown"]) or (
        task == "keypoints" and not annotation["num_keypoints"]
    )
    return bool(annotation["iscrowd"]) or unknown


def _corners(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _as_text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


def without_nan(metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Metrics for JSON, which has no nan: null."""
    return {
        task: {name: None if math.isnan(value) else value for name, value in values.items()}
        for task, values in metrics.items()
    }
