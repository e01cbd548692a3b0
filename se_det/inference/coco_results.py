"""A detector's output as COCO results: XYWH boxes, the file's own category ids, masks as compressed RLE."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from pycocotools import mask as mask_tools

from ..data.rle import window_counts
from ..detection.masks import paste_windows
from ..errors import ConfigError
from .crop_masks import encode_crop_masks

MASKS_AT_ONCE = 16  # a copy of each mask is made for encoding; this bounds the copies


def to_coco_results(
    instances: Mapping[str, Any],
    *,
    image_id: Hashable,
    category_ids: Sequence[int],
    masks: bool,
    keypoints: bool = False,
) -> tuple[list[dict[str, Any]], int]:
    """The detections of one image as COCO results, ready for JSON.

    Args:
        instances: `pred_boxes` (m, 4) XYXY px of the original image, `scores` (m,), `pred_classes` (m,), and with
            `masks` also `pred_masks` bool (m, height, width), or what `GeneralizedRCNN.detect` or `TiledInstances`
            gives in their place.
        image_id: the image's id in the annotation file.
        category_ids: the file's category id per class index.
        masks: whether to add a `segmentation` to each result.
        keypoints: whether to add `keypoints`: x, y, score, x, y, score, ..., of `pred_keypoints` (m, K, 3). COCO
            numbers pixels, whose centres are half a px further.

    Returns:
        The results, and how many detections were left out because their box or score was not finite.

    Raises:
        ConfigError: a class index that the file does not have, or masks that the detector did not make.
    """
    if masks and not {"pred_masks", "box_masks", "crop_masks"} & instances.keys():
        raise ConfigError(
            "Masks are to be evaluated, but the detector makes none. Set MODEL.MASK_ON True, or evaluate boxes only."
        )
    if keypoints and "pred_keypoints" not in instances:
        raise ConfigError("Keypoints are asked for, but the detector makes none: set MODEL.KEYPOINT_ON True.")
    boxes, scores, classes = (instances[key].detach().cpu() for key in ("pred_boxes", "scores", "pred_classes"))
    if boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()  # widths of large boxes would be rounded to several pixels
    finite = (torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores)).nonzero().flatten()
    boxes, scores, classes = boxes[finite], scores[finite], classes[finite].tolist()
    wrong = [index for index in classes if not 0 <= index < len(category_ids)]
    if wrong:
        raise ConfigError(
            f"The detector found an object of class {wrong[0]} in image {image_id}, but the annotation file has "
            f"{len(category_ids)} categories (0 to {len(category_ids) - 1}). Set the model's NUM_CLASSES to "
            f"{len(category_ids)} and use weights trained for this data set."
        )
    xywh = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1).tolist()
    results = [
        {"image_id": image_id, "category_id": category_ids[index], "bbox": box, "score": score}
        for index, box, score in zip(classes, xywh, scores.tolist())
    ]
    if keypoints:
        points = instances["pred_keypoints"].detach().cpu().float()[finite]
        points = points - points.new_tensor([0.5, 0.5, 0.0])
        for result, values in zip(results, points.flatten(1).tolist()):
            result["keypoints"] = values
    if masks:
        if "pred_masks" in instances:
            kept = instances["pred_masks"]
            rles = encode_masks(kept[finite.to(kept.device)])
        elif "crop_masks" in instances:
            crops = [instances["crop_masks"][at] for at in finite.tolist()]
            rles = _as_text(encode_crop_masks(crops, *instances["image_size"]))
        else:
            rles = encode_box_masks(instances["box_masks"].cpu()[finite], boxes, *instances["image_size"])
        for result, rle in zip(results, rles):
            result["segmentation"] = rle
    return results, len(instances["scores"]) - len(results)


def encode_masks(masks: torch.Tensor) -> list[dict[str, Any]]:
    """Compressed RLEs `{"size": [height, width], "counts": str}` of bool masks (m, height, width)."""
    rles = []
    for part in masks.split(MASKS_AT_ONCE) if len(masks) else ():
        # pycocotools wants (height, width, m) in Fortran order: columns are what lies together in memory.
        columns = part.detach().to(torch.uint8).transpose(1, 2).contiguous().cpu().numpy()
        rles += mask_tools.encode(columns.transpose(2, 1, 0))
    return _as_text(rles)


def encode_box_masks(probabilities: torch.Tensor, boxes: torch.Tensor, height: int, width: int) -> list[dict[str, Any]]:
    """What `encode_masks` gives of the masks that `paste_masks` makes, without making them."""
    counts = [
        {"size": [height, width], "counts": window_counts(window, top, left, height, width).tolist()}
        for top, left, window in paste_windows(probabilities, boxes, height, width)
    ]
    return _as_text(mask_tools.frPyObjects(counts, height, width)) if counts else []


def _as_text(rles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"size": list(map(int, rle["size"])), "counts": rle["counts"].decode("ascii")} for rle in rles]
