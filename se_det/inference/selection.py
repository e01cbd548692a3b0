"""Some of a detector's instances: those that are asked for, those that are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..detection.rcnn import paste_detections


def select(instances: Mapping[str, Any], kept: torch.Tensor) -> dict[str, Any]:
    """Those of the detector's instances that bool (m,) `kept` says, on the CPU."""
    at = kept.nonzero()[:, 0]
    kept_ones = {name: value.cpu()[at] for name, value in instances.items() if torch.is_tensor(value)}
    if "crop_masks" in instances:
        kept_ones["crop_masks"] = [instances["crop_masks"][i] for i in at.tolist()]
    return {**instances, **kept_ones}


def select_shown(instances: Mapping[str, Any], limits: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is drawn of the detector's instances, by `limits`, a score per class; with masks in the image."""
    scores = instances["scores"].cpu()
    kept = scores >= limits.to(scores.dtype)[instances["pred_classes"].cpu()]
    return paste_detections(select(instances, kept))
