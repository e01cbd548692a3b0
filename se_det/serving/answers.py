"""From detections to what is sent: COCO results as JSON, or the image with them drawn on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from ..data.class_names import find_classes
from ..inference import Predictor, draw_detections
from ..inference.coco_results import to_coco_results
from ..inference.predict_files import ENLARGE_BELOW
from ..inference.result import score_limits
from ..inference.selection import select, select_shown

MAX_DRAWN = 2048  # px of a drawn image's long side: each mask is as large as the image while it is drawn
MASKS = {"box_masks", "crop_masks"}  # of whole images, of windows
ENDINGS = {"image/jpeg": ".jpg", "image/png": ".png"}


@dataclass(frozen=True)
class Wish:
    """What a caller wants of an image.

    Attributes:
        media_type: `application/json`, or one of `ENDINGS`.
        threshold: the score from which detections count; None: all in JSON, each class from its own score when drawn.
        classes: indices of those that count; None is all.
        image_id: of the COCO results.
    """

    media_type: str
    threshold: float | None = None
    classes: Sequence[int] | None = None
    image_id: int = 0


def wanted_classes(texts: Sequence[str], predictor: Predictor) -> list[int]:
    """The indices of classes by names or ids; a text may list several, parted by commas.

    Raises:
        ConfigError: there is no such class.
    """
    words: list[str] = []
    for text in texts:
        words += [text] if text in predictor.class_names else [part.strip() for part in text.split(",")]
    return find_classes(words, predictor.class_names, predictor.category_ids)


def chosen(instances: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
    """Those of the detector's instances that the caller wants."""
    scores, classes = instances["scores"].cpu(), instances["pred_classes"].cpu()
    kept = torch.ones(len(scores), dtype=torch.bool)
    if wish.threshold is not None:
        kept &= scores >= wish.threshold
    if wish.classes is not None:
        kept &= torch.isin(classes, torch.tensor(wish.classes, dtype=classes.dtype))
    return select(instances, kept)


def as_json(instances: Mapping[str, Any], size: tuple[int, int], wish: Wish, predictor: Predictor) -> tuple[bytes, int]:
    """The wanted instances in an image of `size` (height, width) as JSON, and how many they are.

    The entries of `detections` are those that `se-det predict` writes, with `category`, the class's name.
    """
    instances = chosen(instances, wish)
    results, _ = to_coco_results(
        instances, image_id=wish.image_id, category_ids=predictor.category_ids, masks=not MASKS.isdisjoint(instances),
        keypoints="pred_keypoints" in instances,
    )  # fmt: skip
    names = dict(zip(predictor.category_ids, predictor.class_names))
    entries = [{**result, "category": names[result["category_id"]]} for result in results]
    return json.dumps({"width": size[1], "height": size[0], "detections": entries}).encode(), len(entries)


def shrunk(instances: Mapping[str, Any], factor: int, size: tuple[int, int]) -> dict[str, Any]:
    """Instances on the CPU in the pixels of an image that is `factor` times smaller, of `size` (height, width)."""
    result = {**instances, "pred_boxes": instances["pred_boxes"] / factor}
    if "pred_keypoints" in instances:
        result["pred_keypoints"] = instances["pred_keypoints"] / torch.tensor([factor, factor, 1.0])
    if "image_size" in instances:
        result["image_size"] = size
    if "crop_masks" in instances:
        result["crop_masks"] = [mask.shrunk(factor) for mask in instances["crop_masks"]]
    return result


def as_picture(instances: Mapping[str, Any], pixels: np.ndarray, wish: Wish, predictor: Predictor) -> tuple[bytes, int]:
    """The image with the wanted instances drawn as `se-det predict` does, encoded, and how many they are.

    An image whose long side has more than `MAX_DRAWN` px is made smaller by a whole factor.
    """
    thresholds = predictor.thresholds if wish.threshold is None else [wish.threshold] * len(predictor.thresholds)
    instances = chosen(instances, wish)
    factor = -(-max(pixels.shape[:2]) // MAX_DRAWN)
    if factor > 1:
        small = tuple(-(-side // factor) for side in pixels.shape[:2])
        pixels = cv2.resize(pixels, small[::-1], interpolation=cv2.INTER_AREA)
        instances = shrunk(instances, factor, small)
    shown = select_shown(instances, torch.from_numpy(score_limits(thresholds)))
    drawn = draw_detections(
        pixels,
        shown,
        predictor.class_names,
        score_threshold=float("-inf"),
        enlarge_below=ENLARGE_BELOW,
        skeleton=predictor.skeleton,
    )
    _, encoded = cv2.imencode(ENDINGS[wish.media_type], drawn)
    return encoded.tobytes(), len(shown["scores"])
