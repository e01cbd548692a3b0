"""Masks that are refined point by point (PointRend: Kirillov et al., arXiv 1912.08193)."""

from __future__ import annotations

import torch

from ...detection.roi_heads import StandardROIHeads
from ...internals.symbolic_size import as_size
from ..found import Found
from ..tensor_boxes import ANYTHING
from .registry import HEADS


@HEADS.register(name="PointRendMaskHead")
class GraphPointRend:
    """See `GraphHead`: (N, D, M, M) probabilities within the boxes, of as many detections of each image as the image
    with most has."""

    output = "masks"

    def __init__(self, heads: StandardROIHeads) -> None:
        self.head = heads.mask_head

    def __call__(self, maps: list[torch.Tensor], found: Found) -> torch.Tensor:
        there = found.scores > ANYTHING
        used = torch.arange(as_size(there.sum(1).amax(0).clamp(min=1)), device=there.device)
        pixel = found.boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
        boxes = torch.where(there[..., None], found.boxes, pixel).index_select(1, used)
        classes = found.classes.index_select(1, used)
        masks = self.head.probabilities(maps, boxes, classes.flatten()).unflatten(0, (-1, used.shape[0]))
        return masks.new_zeros(*there.shape, *masks.shape[2:]).index_copy(1, used, masks)
