"""Panoptic FPN as a graph of its parts: instances and classes of pixels.

Segments are made of both one instance after another, each where none before is, which no operator does: who runs the
file combines them, as `combine_segments` does, by the limits in the file's metadata.
"""

from __future__ import annotations

import torch

from ...detection.architectures.panoptic_fpn import PanopticFPN
from ...layers.valid_area import ValidArea
from ..found import Found
from .rcnn import GraphRCNN
from .registry import EXPORTERS
from .semantic_segmentor import check_pixel_head


@EXPORTERS.register(name="PanopticFPN")
class GraphPanoptic(GraphRCNN):
    """Instances with masks, and classes of pixels."""

    labels_pixels = True

    def __init__(self, model: PanopticFPN) -> None:
        check_pixel_head(model.sem_seg_head)
        super().__init__(model)

    def forward(self, x: torch.Tensor, area: ValidArea | None, sizes: torch.Tensor) -> Found:
        """See `GraphDetector`."""
        maps, areas = self.model.backbone.features(x, area)
        return self.instances(maps, areas, sizes)._replace(pixels=self.model.sem_seg_head(maps, areas))
