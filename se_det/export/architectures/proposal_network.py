"""A region proposal network alone as a graph."""

from __future__ import annotations

import torch
from torch import nn

from ...detection.architectures.proposal_network import ProposalNetwork
from ...layers.valid_area import ValidArea
from ..found import Found
from ..tensor_boxes import ANYTHING, NOTHING
from .rcnn import propose
from .registry import EXPORTERS


@EXPORTERS.register(name="ProposalNetwork")
class GraphProposals(nn.Module):
    """Boxes of class 0, whose scores are the probabilities of an object; with the logits, by which they are ordered."""

    extras = ("objectness_logits",)
    labels_pixels = False

    def __init__(self, model: ProposalNetwork) -> None:
        super().__init__()
        self.model = model
        self.max_detections = model.proposal_generator.post_nms_topk[1]

    def forward(self, x: torch.Tensor, area: ValidArea | None, sizes: torch.Tensor) -> Found:
        """See `GraphDetector`."""
        model = self.model
        maps, areas = ([found[name] for name in model.features] for found in model.backbone.features(x, area))
        boxes, logits = propose(model.proposal_generator, maps, areas, sizes)
        scores = torch.where(logits > ANYTHING, logits.sigmoid(), NOTHING)
        return Found(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), {"objectness_logits": logits})
