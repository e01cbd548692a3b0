"""Cascade R-CNN (Cai and Vasconcelos, arXiv 1712.00726): box heads one after another, each on the boxes of the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from . import boxes as box_ops
from .box_head import BoxHead, BoxPredictor
from .roi_heads import StandardROIHeads, in_type_of


class CascadeROIHeads(StandardROIHeads):
    """Several box heads, and optionally the heads that `StandardROIHeads` has besides (Detectron2's CascadeROIHeads).

    The first stage is trained on sampled proposals, as in `StandardROIHeads`, each later one on all boxes that the one
    before makes of those. The mask head is trained on the sampled proposals. Scores are the mean of all stages', boxes
    the last's.

    Args:
        box_heads, box_predictors: of each stage; the predictors are class-agnostic.
        stage_thresholds: the IoU from which a box is positive in each stage.
        more: see `StandardROIHeads`.
    """

    def __init__(
        self,
        *,
        box_heads: Sequence[BoxHead],
        box_predictors: Sequence[BoxPredictor],
        stage_thresholds: Sequence[float],
        **more: Any,
    ) -> None:
        super().__init__(
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            iou_thresholds=stage_thresholds[:1],
            **more,
        )
        self.stage_thresholds = tuple(stage_thresholds)

    @property
    def box_stages(self) -> list[tuple[BoxHead, BoxPredictor]]:
        """What boxes go through, one pair after another."""
        return list(zip(self.box_head, self.box_predictor))

    def _box_losses(
        self,
        maps: Sequence[torch.Tensor],
        sampled: Sequence[Mapping[str, Any]],
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        sizes = [instances["image_size"] for instances in truth]
        boxes = [s["boxes"] for s in sampled]
        classes = torch.cat([s["classes"] for s in sampled])
        targets = torch.cat([s["truth"] for s in sampled])
        levels, losses = self._known_levels(maps, sampled), {}
        for stage, (head, predictor) in enumerate(self.box_stages):
            pooled = self.box_pooler(maps, boxes, levels)
            if pooled.requires_grad:
                # The losses of all stages are added up: so the maps get the mean of their gradients.
                pooled.register_hook(self._mean_of_stages)
            scores, deltas = predictor(in_type_of(predictor, head(in_type_of(head, pooled))))
            found = predictor.losses(scores, deltas, torch.cat(boxes), classes, targets)
            losses.update({f"{name}_stage{stage}": loss for name, loss in found.items()})
            for threshold in self.stage_thresholds[stage + 1 : stage + 2]:
                moved = _moved(deltas, boxes, predictor, sizes)
                boxes, levels = [of_image[box_ops.nonempty(of_image)] for of_image in moved], None
                labelled = [
                    self._label(
                        of_image,
                        t["gt_boxes"].to(of_image),
                        t["gt_classes"].to(of_image.device),
                        thresholds=[threshold],
                    )
                    for of_image, t in zip(boxes, truth)
                ]
                classes = torch.cat([of_image[1] for of_image in labelled])
                targets = torch.cat([of_image[2] for of_image in labelled])
        return losses

    def _mean_of_stages(self, total: torch.Tensor) -> torch.Tensor:
        return total * (1.0 / len(self.stage_thresholds))

    def _detect_boxes(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, torch.Tensor]]:
        boxes, probabilities = list(proposals), []
        for stage, (head, predictor) in enumerate(self.box_stages):
            scores, deltas = predictor(in_type_of(predictor, head(in_type_of(head, self.box_pooler(maps, boxes)))))
            probabilities.append(predictor.probabilities(scores))
            if stage + 1 < len(self.stage_thresholds):
                boxes = _moved(deltas, boxes, predictor, image_sizes)
        return predictor.detect_probable(self._mean_of_stages(sum(probabilities)), deltas, boxes, image_sizes)


@torch.no_grad()
def _moved(
    deltas: torch.Tensor,
    boxes: Sequence[torch.Tensor],
    predictor: BoxPredictor,
    image_sizes: Sequence[tuple[int, int]],
) -> list[torch.Tensor]:
    """Each image's boxes (n, 4) moved by the deltas (sum n, 4) of a predictor, and clipped."""
    moved = box_ops.decode(deltas.detach(), torch.cat(list(boxes)), predictor.box_weights)
    return [box_ops.clip(b, *size) for b, size in zip(moved.split([len(b) for b in boxes]), image_sizes)]
