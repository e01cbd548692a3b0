"""Semantic segmentation as a graph."""

from __future__ import annotations

import torch
from torch import nn

from ...detection.architectures.semantic_segmentor import SemanticSegmentor
from ...detection.sem_seg_head import SemSegFPNHead
from ...errors import ExportError
from ...layers.valid_area import ValidArea
from ..found import Found
from .registry import EXPORTERS


def check_pixel_head(head: nn.Module) -> None:
    """Refuse a head of classes of pixels of another kind.

    Raises:
        ExportError: it is not `SemSegFPNHead`.
    """
    if type(head) is not SemSegFPNHead:
        raise ExportError(
            f"A network with {type(head).__name__} is not exported: MODEL.SEM_SEG_HEAD.NAME SemSegFPNHead is, or its "
            "backbone alone (--part backbone)."
        )


@EXPORTERS.register(name="SemanticSegmentor")
class GraphSegmentor(nn.Module):
    """Classes of pixels alone."""

    extras = ()
    labels_pixels = True
    max_detections = 0

    def __init__(self, model: SemanticSegmentor) -> None:
        super().__init__()
        check_pixel_head(model.sem_seg_head)
        self.model = model

    def forward(self, x: torch.Tensor, area: ValidArea | None, sizes: torch.Tensor) -> Found:
        """See `GraphDetector`."""
        logits = self.model.sem_seg_head(*self.model.backbone.features(x, area))
        return Found(None, None, None, {}, pixels=logits)
