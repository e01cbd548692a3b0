"""What the steps of an exported meta-architecture find."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Found(NamedTuple):
    """Detections of N images, D of each, in any order, in px of the batch; or classes of pixels; or both.

    Attributes:
        boxes: float32 (N, D, 4) XYXY; None of classes of pixels alone.
        scores: (N, D); `tensor_boxes.NOTHING` where there is none. No infinities.
        classes: int64 (N, D).
        extras: (N, D, ...) by output name; of `keypoints`, x and y are in px of the batch, too.
        pixels: logits (N, K, H, W) of classes of pixels; None of detections alone.
    """

    boxes: torch.Tensor | None
    scores: torch.Tensor | None
    classes: torch.Tensor | None
    extras: dict[str, torch.Tensor]
    pixels: torch.Tensor | None = None
