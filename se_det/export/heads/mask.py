"""Masks of one size for all boxes."""

from __future__ import annotations

import torch

from ...detection.roi_heads import StandardROIHeads
from ..found import Found
from ..tensor_boxes import pool
from .registry import HEADS, present, put_back


@HEADS.register(name="MaskHead")
class GraphMasks:
    """See `GraphHead`: (N, D, M, M) probabilities within the boxes."""

    output = "masks"

    def __init__(self, heads: StandardROIHeads) -> None:
        self.heads = heads

    def __call__(self, maps: list[torch.Tensor], found: Found) -> torch.Tensor:
        heads = self.heads
        rois, at = present(found)
        if heads.mask_pooler is not None:
            pooled = pool(heads.mask_pooler, maps, rois)
        else:  # `Res5ROIHeads`: the mask head reads what the boxes' predictor does
            pooled = heads.res5(pool(heads.box_pooler, maps, rois))[0]
        classes = found.classes.flatten().index_select(0, at)
        masks = heads.mask_head.select_class(heads.mask_head(pooled), classes).sigmoid()
        return put_back(masks, at, found)
