"""How far predicted boxes are from the true ones: the losses of MODEL.RPN and MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from . import boxes as box_ops

# Of boxes in pixels: arXiv 1902.09630 (GIoU), 1911.08287 (DIoU, CIoU). Detectron2 has the same formulas.
IOU_LOSSES = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}
BOX_LOSSES = ("smooth_l1", *IOU_LOSSES)


def box_loss(
    deltas: torch.Tensor,
    sources: torch.Tensor,
    targets: torch.Tensor,
    *,
    weights: Sequence[float],
    kind: str = "smooth_l1",
    beta: float = 0.0,
) -> torch.Tensor:
    """The loss of each box, not yet added up.

    Args:
        deltas: (..., 4), predicted.
        sources, targets: (..., 4) XYXY px, of sides above 0: the boxes that the deltas move, and where to.
        weights: factors of the deltas.
        kind: one of `BOX_LOSSES`. "smooth_l1" compares deltas, the others the boxes.
        beta: of smooth L1; 0 is L1.

    Returns:
        (..., 4) terms for "smooth_l1", (..., 1) for the others.
    """
    if kind == "smooth_l1":
        return box_ops.smooth_l1(deltas.to(targets.dtype), box_ops.encode(sources, targets, weights), beta)
    boxes = box_ops.decode(deltas, sources, weights)
    return IOU_LOSSES[kind](boxes, targets.to(boxes.dtype))[..., None]
