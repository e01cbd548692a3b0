"""What an exported detector says of itself, under the key `se_det`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fvcore.common.config import CfgNode

from .. import __version__
from ..detection.rcnn import Detector
from ..inference.exported import config_hash


def detector_metadata(
    cfg: CfgNode, model: Detector, outputs: Sequence[str], *, max_detections: int, preprocessing: bool,
    class_names: Sequence[str], category_ids: Sequence[int], thresholds: Sequence[float | None],
) -> dict[str, Any]:  # fmt: skip
    """Plain values: classes with their category ids and scores of best F1 (null without), facts about the input, the
    names of the outputs, and which config and version made it."""
    mean, std = (value.flatten().tolist() for value in (model.pixel_mean, model.pixel_std))
    return {
        "classes": [
            {"id": number, "name": name, "threshold": threshold}
            for number, name, threshold in zip(category_ids, class_names, thresholds)
        ],
        "input": {
            "preprocessing": preprocessing,
            "format": "RGB" if preprocessing else cfg.INPUT.FORMAT,
            "min_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_size": cfg.INPUT.MAX_SIZE_TEST,
            "pixel_mean": mean,
            "pixel_std": std,
            "size_divisibility": model.backbone.size_divisibility,
            "padding": model.backbone.padding,
        },
        "outputs": list(outputs),
        "max_detections": max_detections,
        "images_per_batch": cfg.TEST.IMS_PER_BATCH,
        "architecture": cfg.MODEL.META_ARCHITECTURE,
        "precision": "float32",
        "config_hash": config_hash(cfg),
        "version": __version__,
    }
