"""What an exported detector says of itself, under the key `se_det`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode

from .. import __version__
from ..config.loading import get_key
from ..data.loader import LABEL_PIXELS
from ..detection.architectures.panoptic_fpn import PanopticFPN
from ..detection.rcnn import Detector
from ..detection.registry import model_facts
from ..errors import ExportError
from ..inference.exported import config_hash


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What numbers of the outputs mean, as plain values.

    Attributes:
        classes: of each its category `id`, `name` and `threshold`, the score of best F1 or None.
        keypoints: `names`, and `skeleton`, pairs of numbers from 0; None where there are none.
        pixel_classes: of each its category `id` and `name`; None where there are none.
    """

    classes: list[dict[str, Any]]
    keypoints: dict[str, Any] | None
    pixel_classes: list[dict[str, Any]] | None

    @classmethod
    def of(
        cls, cfg: CfgNode, *, class_names: Sequence[str] | None, category_ids: Sequence[int] | None,
        thresholds: Sequence[float | None] | None, keypoint_names: Sequence[str], skeleton: Sequence[tuple[int, int]],
        pixel_class_names: Sequence[str] | None, pixel_category_ids: Sequence[int] | None,
    ) -> Labels:  # fmt: skip
        """Of names, or numbers where there are none.

        Raises:
            ExportError: there are more classes of pixels than a byte can tell apart.
        """
        keys = model_facts(cfg).class_keys
        if class_names is None:
            class_names = list(map(str, range(get_key(cfg, keys[0])))) if keys else ["object"]
        count = len(class_names)
        classes = [
            {"id": number, "name": name, "threshold": threshold}
            for number, name, threshold in zip(
                category_ids or range(count), class_names, thresholds or [None] * count, strict=True
            )
        ]
        keypoints = None
        if cfg.MODEL.KEYPOINT_ON:
            names = list(keypoint_names) or list(map(str, range(cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS)))
            keypoints = {"names": names, "skeleton": [list(pair) for pair in skeleton]}
        if cfg.MODEL.META_ARCHITECTURE not in LABEL_PIXELS:
            return cls(classes=classes, keypoints=keypoints, pixel_classes=None)
        count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        if count > 255:
            raise ExportError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {count}, and an exported network gives classes of pixels as bytes: "
                "at most 255 are exported."
            )
        names = pixel_class_names or list(map(str, range(count)))
        pixels = [{"id": i, "name": n} for i, n in zip(pixel_category_ids or range(count), names, strict=True)]
        return cls(classes=classes if "bbox" in model_facts(cfg).tasks(cfg) else [], keypoints=keypoints,
                   pixel_classes=pixels)  # fmt: skip


def detector_metadata(
    cfg: CfgNode, model: Detector, outputs: Sequence[str], *, max_detections: int, preprocessing: bool, labels: Labels
) -> dict[str, Any]:
    """Plain values: classes with their category ids and scores of best F1 (null without), facts about the input, the
    names of the outputs, and which config and version made it."""
    mean, std = (value.flatten().tolist() for value in (model.pixel_mean, model.pixel_std))
    more: dict[str, Any] = {}
    if labels.keypoints is not None:
        more["keypoints"] = labels.keypoints
    if labels.pixel_classes is not None:
        more["pixel_classes"] = labels.pixel_classes
        more["ignore_value"] = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    if isinstance(model, PanopticFPN):
        more["combine"] = model.limits()
    return {
        "classes": labels.classes,
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
        **more,
        "images_per_batch": cfg.TEST.IMS_PER_BATCH,
        "architecture": cfg.MODEL.META_ARCHITECTURE,
        "precision": "float32",
        "config_hash": config_hash(cfg),
        "version": __version__,
    }
