"""Faster, Mask, Keypoint and Cascade R-CNN as a graph: the steps of `GeneralizedRCNN` for tensors of fixed numbers of
boxes.

Proposals and detections are filled up to their largest possible number, so that only what goes into a level's pooling
and into the heads of detections has a number that the images decide.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ...detection import boxes as box_ops
from ...detection.rcnn import GeneralizedRCNN
from ...errors import ExportError
from ...layers.valid_area import ValidArea
from ..found import Found
from ..heads import BOX_FEATURES
from ..heads.registry import entry, graph_head
from ..nms import grouped_nms
from ..tensor_boxes import ANYTHING, NOTHING, best, clip_to, pool, rois_of, select
from .registry import EXPORTERS


@EXPORTERS.register(name="GeneralizedRCNN")
class GraphRCNN(nn.Module):
    """See the module; the parts are those of `model`."""

    labels_pixels = False

    def __init__(self, model: GeneralizedRCNN) -> None:
        super().__init__()
        heads = model.roi_heads
        if model.proposal_generator is None:
            raise ExportError(
                "A detector whose proposals come from files (MODEL.PROPOSAL_GENERATOR.NAME PrecomputedProposals) is "
                "not exported, as its graph would need them with each image: train one with RPN."
            )
        self.box_features = entry(BOX_FEATURES, heads)
        predictor = heads.box_stages[-1][1]
        if predictor.nms_type != "hard":
            raise ExportError(
                f"MODEL.ROI_HEADS.NMS_TYPE is {predictor.nms_type}, which takes a round after the other over all boxes "
                "and has no operator in any format of exported networks: set MODEL.ROI_HEADS.NMS_TYPE=hard."
            )
        self.model = model
        self.max_detections = predictor.max_detections
        parts = [part for part in (heads.keypoint_head, heads.mask_head) if part is not None]
        self.heads = tuple(graph_head(heads, part) for part in parts)
        self.extras = tuple(head.output for head in self.heads)

    def forward(self, x: torch.Tensor, area: ValidArea | None, sizes: torch.Tensor) -> Found:
        """See `GraphDetector`."""
        return self.instances(*self.model.backbone.features(x, area), sizes)

    def instances(
        self, maps: Mapping[str, torch.Tensor], areas: Mapping[str, ValidArea | None], sizes: torch.Tensor
    ) -> Found:
        """What is found on the backbone's maps."""
        model = self.model
        rpn_maps, rpn_areas = ([found[name] for name in model.rpn_features] for found in (maps, areas))
        proposals, logits = propose(model.proposal_generator, rpn_maps, rpn_areas, sizes)
        roi_maps = [model._prepare_for_pooling(maps[name], areas[name]) for name in model.roi_features]
        found = self._detect(roi_maps, proposals, logits > ANYTHING, sizes)
        return found._replace(extras={head.output: head(roi_maps, found) for head in self.heads})

    def _detect(
        self, maps: list[torch.Tensor], proposals: torch.Tensor, there: torch.Tensor, sizes: torch.Tensor
    ) -> Found:
        heads = self.model.roi_heads
        shape, moved, probable = proposals.shape[:2], proposals, []
        for head, predictor in heads.box_stages:
            sources = moved
            features = self.box_features(head, pool(heads.box_pooler, maps, rois_of(sources, there)))
            scores, deltas = predictor(features)
            probable.append(predictor.probabilities(scores).unflatten(0, shape))
            moved = box_ops.decode(deltas.unflatten(0, shape), sources, predictor.box_weights)
            if len(probable) < len(heads.box_stages):
                moved = clip_to(moved, sizes)
        boxes, probabilities = moved, sum(probable) * (1.0 / len(probable))
        finite = torch.isfinite(boxes).all(2) & torch.isfinite(probabilities).all(2) & there
        boxes = torch.where(finite[..., None], boxes, 0.0)
        boxes = clip_to(boxes.unflatten(2, (-1, 4)), sizes).transpose(1, 2)
        boxes = boxes.expand(-1, heads.num_classes, -1, -1)  # (N, K, P, 4)
        scores = probabilities[..., :-1].transpose(1, 2)
        candidate = (scores > predictor.score_threshold) & finite[:, None]
        scores = torch.where(candidate, scores, NOTHING)
        kept = grouped_nms(boxes.flatten(0, 1), scores.flatten(0, 1), predictor.nms_threshold)
        ranked = torch.where(kept.view(scores.shape), scores, NOTHING).flatten(1)
        highest, at = best(ranked, self.max_detections)
        return Found(select(boxes.flatten(1, 2), at), highest, at // shape[1], {})


def propose(rpn: nn.Module, maps: list, areas: list, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`RPN.predict_proposals`: boxes (N, P, 4) and their logits (N, P), best first, `NOTHING` where there is none."""
    anchors = rpn.anchor_generator(maps)
    logits, deltas = rpn.rpn_head(maps, areas)
    scores, boxes = [], []
    for level, (x, area) in enumerate(zip(maps, areas)):
        own = logits[level].float()
        if area is not None and area.exact:
            inside = area.mask(x).flatten(1)[..., None].expand(-1, -1, rpn.anchor_generator.anchors_per_cell)
            own = torch.where(inside.flatten(1), own, NOTHING)
        highest, at = best(own, rpn.pre_nms_topk[1])
        scores.append(highest)
        boxes.append(box_ops.decode(select(deltas[level], at), anchors[level][at], rpn.box_weights))
    scores, boxes = torch.stack(scores, 1), torch.stack(boxes, 1)  # (N, L, k), (N, L, k, 4)
    finite = torch.isfinite(boxes).all(3) & torch.isfinite(scores) & (scores > ANYTHING)
    boxes = clip_to(torch.where(finite[..., None], boxes, 0.0), sizes)
    sound = finite & box_ops.nonempty(boxes, rpn.min_size)
    scores = torch.where(sound, scores, NOTHING)
    kept = grouped_nms(boxes.flatten(0, 1), scores.flatten(0, 1), rpn.nms_threshold)
    ranked = torch.where(kept.view(scores.shape), scores, NOTHING).flatten(1)
    highest, at = best(ranked, rpn.post_nms_topk[1])
    return select(boxes.flatten(1, 2), at), highest
