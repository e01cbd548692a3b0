"""Keypoints: the highest place of each heat map, in the size of its box."""

from __future__ import annotations

import torch

from ...detection.roi_heads import StandardROIHeads
from ..found import Found
from ..heatmaps import highest_places
from ..tensor_boxes import pool
from .registry import HEADS, present, put_back


@HEADS.register(name="KeypointHead")
class GraphKeypoints:
    """See `GraphHead`: (N, D, K, 3), x and y px and a score."""

    output = "keypoints"

    def __init__(self, heads: StandardROIHeads) -> None:
        self.heads = heads

    def __call__(self, maps: list[torch.Tensor], found: Found) -> torch.Tensor:
        rois, at = present(found)
        logits = self.heads.keypoint_head(pool(self.heads.keypoint_pooler, maps, rois))
        return put_back(highest_places(logits, rois[:, 1:]), at, found)
