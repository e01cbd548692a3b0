"""Semantic segmentation as a graph."""

from __future__ import annotations

import torch
from torch import nn

from ...detection.architectures.semantic_segmentor import SemanticSegmentor
from ...layers.valid_area import ValidArea
from ..found import Found
from .registry import EXPORTERS


@EXPORTERS.register(name="SemanticSegmentor")
class GraphSegmentor(nn.Module):
    """Classes of pixels alone."""

    extras = ()
    labels_pixels = True
    max_detections = 0

    def __init__(self, model: SemanticSegmentor) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, area: ValidArea | None, sizes: torch.Tensor) -> Found:
        """See `GraphDetector`."""
        logits = self.model.sem_seg_head(*self.model.backbone.features(x, area))
        return Found(None, None, None, {}, pixels=logits)
