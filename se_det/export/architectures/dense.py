"""RetinaNet and FCOS as a graph: the steps of `DenseDetector`, which both have in common.

Of each level as many candidates are taken as there can be, so that no number is left to the images.
"""

from __future__ import annotations

import torch
from torch import nn

from ...detection.dense import DenseDetector
from ...layers.valid_area import ValidArea
from ..found import Found
from ..nms import grouped_nms
from ..tensor_boxes import NOTHING, best, clip_to, select
from .registry import EXPORTERS


@EXPORTERS.register(name="RetinaNet")
@EXPORTERS.register(name="FCOS")
class GraphDense(nn.Module):
    """See the module; the parts are those of `model`."""

    extras = ()
    labels_pixels = False

    def __init__(self, model: DenseDetector) -> None:
        super().__init__()
        self.model = model
        self.max_detections = model.max_detections

    def forward(self, x: torch.Tensor, area: ValidArea | None, sizes: torch.Tensor) -> Found:
        """See `GraphDetector`."""
        model = self.model
        maps, areas = ([found[name] for name in model.features] for found in model.backbone.features(x, area))
        logits, deltas, centreness = model.head(maps, areas)
        anchors = model.anchor_generator(maps)
        levels = [
            self._candidates(*values)
            for values in zip(maps, areas, anchors, logits, deltas, centreness or [None] * len(maps))
        ]
        boxes, scores, classes = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        if model.clip_before_nms:
            boxes = clip_to(boxes, sizes)
        # A group for each class, (N, K, B), in which only the boxes of that class are.
        own = classes[:, None] == torch.arange(model.num_classes, device=classes.device)[:, None]
        each = torch.where(own, scores[:, None], NOTHING)
        spread = boxes[:, None].expand(-1, model.num_classes, -1, -1)
        kept = grouped_nms(spread.flatten(0, 1), each.flatten(0, 1), model.nms_threshold).view(each.shape)
        highest, at = best(torch.where(kept.any(1), scores, NOTHING), self.max_detections)
        return Found(select(boxes, at), highest, select(classes, at), {})

    def _candidates(
        self,
        x: torch.Tensor,
        area: ValidArea | None,
        anchors: torch.Tensor,
        logits: torch.Tensor,
        deltas: torch.Tensor,
        centreness: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The best of a level: boxes (N, k, 4), scores and classes (N, k)."""
        model = self.model
        scores = model._scores(logits.float(), None if centreness is None else centreness[..., None])
        candidate = scores > model.score_threshold
        if area is not None and area.exact:
            per_cell = model.anchor_generator.anchors_per_cell
            inside = area.mask(x).flatten(1)[..., None].expand(-1, -1, per_cell)
            candidate = candidate & inside.flatten(1)[..., None]
        highest, at = best(torch.where(candidate, scores, NOTHING).flatten(1), model.topk)
        anchor, label = at // model.num_classes, at % model.num_classes
        sources = anchors.index_select(0, anchor.flatten())
        boxes = model.decode(select(deltas, anchor).flatten(0, 1), sources).view(*at.shape, 4)
        finite = torch.isfinite(boxes).all(2)
        return torch.where(finite[..., None], boxes, 0.0), torch.where(finite, highest, NOTHING), label
