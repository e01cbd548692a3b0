"""A whole detector as one graph, for one image of a fixed size.

Tensors that depend on the number of boxes in `GeneralizedRCNN` have a fixed size here: proposals and detections are
padded to their largest possible number with empty boxes, and each box is pooled from every level of the pyramid, of
which its own is selected. Only the candidates between the scores and the last NMS have a dynamic number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import nms

from ..backbones.trunk import image_area
from ..detection import boxes as box_ops
from ..detection.pooler import ROIPooler
from ..detection.rcnn import GeneralizedRCNN
from ..detection.roi_heads import StandardROIHeads
from ..errors import ExportError
from .networks import Exportable, normalisation, prepare_for_export


def detector(model: GeneralizedRCNN, size: tuple[int, int]) -> Exportable:
    """The detector as a network to export: one image (1, 3, height, width), values 0 to 255, to its detections.

    Outputs, by falling score: `boxes` (D, 4) XYXY px, `scores` (D,), `classes` (D,) and, with a mask head, `masks`
    (D, 28, 28), probabilities within each box (`detection.masks.paste_masks` pastes them into the image). D is
    TEST.DETECTIONS_PER_IMAGE; missing detections have score 0 and class -1.

    Raises:
        ExportError: a side is not positive, or the detector has soft-NMS or RoI heads of another kind.
    """
    if not isinstance(model, GeneralizedRCNN):
        raise ExportError(
            f"A {type(model).__name__} cannot be exported as a whole yet, only a GeneralizedRCNN: export its backbone "
            "with --part backbone."
        )
    if min(size) < 1:
        raise ExportError(f"A detector is exported for images of one size, and {size[0]} x {size[1]} is none.")
    if type(model.roi_heads) is not StandardROIHeads:
        raise ExportError(
            f"A detector with {type(model.roi_heads).__name__} is not exported: MODEL.ROI_HEADS.NAME StandardROIHeads "
            "is."
        )
    if model.roi_heads.box_predictor.nms_type != "hard":
        raise ExportError(
            f"MODEL.ROI_HEADS.NMS_TYPE is {model.roi_heads.box_predictor.nms_type}, and an exported detector has only "
            "hard: set MODEL.ROI_HEADS.NMS_TYPE hard."
        )
    outputs = ("boxes", "scores", "classes", *(("masks",) if model.roi_heads.mask_head is not None else ()))
    module = prepare_for_export(Detector(model, size))
    metadata = {**normalisation(model), "normalised": True, "size": list(size)}
    return Exportable(
        module, outputs, ((1, 3, *size),), dynamic=False, metadata=metadata, difference=detections_difference
    )


def detections_difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """The largest difference of a detection to the one nearest to it among the others, boxes and scores as shares of
    the largest coordinate and of 1; infinite where their numbers or classes differ. Two that score alike may change
    places."""
    numbers = [int((found[1] > 0).sum()) for found in (ours, theirs)]
    if numbers[0] != numbers[1]:
        return math.inf
    rows = []
    for boxes, scores, classes, *masks in (ours, theirs):
        count, side = numbers[0], max(float(ours[0].abs().max()), 1.0)
        parts = [boxes[:count] / side, scores[:count, None], classes[:count, None].to(boxes.dtype)]
        rows.append(torch.cat([*parts, *(m[:count].flatten(1) for m in masks)], 1))
    return float(torch.cdist(*rows, p=math.inf).min(1).values.max()) if numbers[0] else 0.0


class Detector(nn.Module):
    """See `detector`; the parts are those of `model`."""

    def __init__(self, model: GeneralizedRCNN, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.size = size

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, 3, height, width) to the outputs."""
        model, (height, width) = self.model, self.size
        stride = max(model.backbone.size_divisibility, 1)
        x = (images - model.pixel_mean) / model.pixel_std
        x = F.pad(x, (0, -width % stride, 0, -height % stride))
        maps, areas = model.backbone.features(x, image_area(model.backbone.padding, [self.size]))
        proposals = self._propose(
            [maps[name] for name in model.rpn_features], [areas[name] for name in model.rpn_features]
        )
        roi_maps = [model._prepare_for_pooling(maps[name], areas[name]) for name in model.roi_features]
        return self._detect(roi_maps, proposals)

    def _propose(self, maps: list[torch.Tensor], areas: list) -> torch.Tensor:
        """Proposals (P, 4) by falling score, padded with empty boxes."""
        rpn = self.model.proposal_generator
        anchors = rpn.anchor_generator(maps)
        logits, deltas = rpn.rpn_head(maps, areas)
        scores, boxes, levels = [], [], []
        for level, (x, area) in enumerate(zip(maps, areas)):
            own = logits[level]
            if area is not None and area.exact and not area.covers(x):
                own = rpn._mask_outside(own, x, area)
            best, at = own[0].topk(min(rpn.pre_nms_topk[1], own.shape[1]))
            scores.append(best)
            boxes.append(box_ops.decode(deltas[level][0, at], anchors[level][at], rpn.box_weights))
            levels.append(torch.full_like(at, level))
        scores, levels = torch.cat(scores), torch.cat(levels)
        boxes = torch.cat(boxes)
        finite = torch.isfinite(boxes).all(1) & torch.isfinite(scores)
        boxes = box_ops.clip(torch.where(finite[:, None], boxes, 0.0), *self.size)
        sound = finite & box_ops.nonempty(boxes, rpn.min_size)
        # Empty boxes overlap with none, so that those which are not sound neither go nor make others go.
        boxes = torch.where(sound[:, None], boxes, 0.0)
        keep = self._nms(boxes, torch.where(sound, scores, -math.inf), levels, rpn.nms_threshold)
        most = min(rpn.post_nms_topk[1], len(boxes))
        nothing = torch.full((most,), len(boxes), dtype=keep.dtype, device=keep.device)
        return torch.cat([boxes, boxes.new_zeros(1, 4)])[torch.cat([keep, nothing])[:most]]

    def _nms(self, boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, threshold: float) -> torch.Tensor:
        """NMS within each group: groups are moved apart by more than an image, as torchvision's `batched_nms` does."""
        apart = groups.to(boxes.dtype) * (max(self.size) + 1)
        return nms(boxes + apart[:, None], scores, threshold)

    def _detect(self, maps: list[torch.Tensor], proposals: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heads = self.model.roi_heads
        predictor = heads.box_predictor
        scores, deltas = predictor(heads.box_head(pool(heads.box_pooler, maps, proposals)))
        probabilities = predictor.probabilities(scores)
        boxes = box_ops.decode(deltas, proposals, predictor.box_weights)
        finite = torch.isfinite(boxes).all(1) & torch.isfinite(probabilities).all(1) & box_ops.nonempty(proposals)
        boxes = box_ops.clip(boxes.unflatten(1, (-1, 4)), *self.size)
        if predictor.class_agnostic:
            boxes = boxes.expand(-1, heads.num_classes, -1)
        candidate = (probabilities[:, :-1] > predictor.score_threshold) & finite[:, None] & box_ops.nonempty(boxes)
        row, label = candidate.nonzero().unbind(1)
        # The last entry stands for nothing: detections are filled up with it.
        boxes = torch.cat([boxes[row, label], boxes.new_zeros(1, 4)])
        score = torch.cat([probabilities[row, label], probabilities.new_zeros(1)])
        label = torch.cat([label, label.new_full((1,), -1)])
        keep = self._nms(boxes, score, label, predictor.nms_threshold)
        most = predictor.max_detections
        last = (row.new_zeros(1) + row.shape[0]).expand(most)
        keep = torch.cat([keep, last])[:most]
        found = boxes[keep], score[keep], label[keep]
        if heads.mask_head is None:
            return found
        logits = heads.mask_head(pool(heads.mask_pooler, maps, found[0]))
        return *found, heads.mask_head.select_class(logits, found[2].clamp(min=0)).sigmoid()


def pool(pooler: ROIPooler, maps: list[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
    """Pool the boxes (n, 4) of one image without sorting them by level."""
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    pooled = pooler._pool(maps[0], rois, pooler.strides[0])
    level = pooler.levels(boxes)[:, None, None, None]
    for number, (x, stride) in enumerate(zip(maps[1:], pooler.strides[1:]), start=1):
        pooled = torch.where(level == number, pooler._pool(x, rois, stride), pooled)
    return pooled
