"""FCOS (Tian et al., arXiv 1904.01355 and 2006.09214) as Detectron2 has it: names and numerics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from ...config.validation import check_ranges
from .. import boxes as box_ops
from ..anchors import AnchorGenerator
from ..build import check_no_masks
from ..build_dense import build_dense
from ..dense import DenseDetector
from ..focal_loss import focal_loss
from ..registry import META_ARCHITECTURES, MODEL_FACTS, ModelFacts

RANGES = {
    "MODEL.FCOS.INFERENCE_TH_TEST": (0, 1),
    "MODEL.FCOS.LOSS_GAMMA": (0, None),
    "MODEL.FCOS.NMS_TH": (0, 1),
    "MODEL.FCOS.NUM_CLASSES": (1, None),
    "MODEL.FCOS.NUM_CONVS": (0, None),
    "MODEL.FCOS.OFFSET": (0, 1 - 1e-6),
    "MODEL.FCOS.POS_RADIUS": (0, None),
    "MODEL.FCOS.PRE_NMS_TOPK_TEST": (1, None),
    "MODEL.FCOS.PRIOR_PROB": (1e-6, 1 - 1e-6),
}
# A level is for objects whose farthest side is this many of its strides from the cell; the first has no lower bound,
# the last no upper one.
LEAST_DISTANCE, MOST_DISTANCE = 4, 8
OBJECTS_AT_ONCE = 1 << 22  # pairs of objects and cells that are compared at a time


class FCOS(DenseDetector):
    """A one-stage detector without anchors: a cell on an object predicts how far its four sides are. What stands for a
    cell ("anchor") is itself, a square box of its stride.

    Args:
        radius: cells nearer than this many strides to an object's centre are positive.
        focal_alpha, focal_gamma: see `focal_loss`.
        dense: see `DenseDetector`.
    """

    def __init__(
        self, *, radius: float = 1.5, focal_alpha: float = 0.25, focal_gamma: float = 2.0, **dense: Any
    ) -> None:
        super().__init__(start=300, **dense)
        self.radius = radius
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma

    def decode(self, deltas: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        deltas = deltas.to(torch.promote_types(deltas.dtype, torch.float32))
        centre, stride = _centres(anchors)
        left_top, right_bottom = (F.relu(deltas) * stride[:, None]).split(2, 1)
        return torch.cat([centre - left_top, centre + right_bottom], 1)

    def losses(
        self,
        anchors: Sequence[torch.Tensor],
        predictions: Sequence[Sequence[torch.Tensor]],
        outside: torch.Tensor | None,
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """`loss_fcos_cls` over all cells, `loss_fcos_loc` (GIoU) and `loss_fcos_ctr` over the positive ones, all
        divided by the moving average of the number of positive cells of a batch."""
        logits, deltas, centreness = predictions
        labels, boxes = self._label(anchors, truth)
        if outside is not None:
            labels = labels.masked_fill(outside, -1)
        positive = (labels >= 0) & (labels < self.num_classes)
        normaliser = self.loss_normalizer(positive.sum().clamp(min=1))
        of_classes = focal_loss(torch.cat(logits, 1), labels, alpha=self.focal_alpha, gamma=self.focal_gamma)
        image, at = positive.nonzero(as_tuple=True)
        anchors, targets = torch.cat(list(anchors))[at], boxes[image, at]
        predicted = self.decode(torch.cat(deltas, 1)[image, at], anchors)
        central = torch.cat(centreness, 1)[image, at].to(predicted.dtype)
        return {
            "loss_fcos_cls": of_classes / normaliser,
            "loss_fcos_loc": generalized_box_iou_loss(predicted, targets, reduction="sum") / normaliser,
            "loss_fcos_ctr": F.binary_cross_entropy_with_logits(
                central, centreness_of(anchors, targets), reduction="sum"
            ) / normaliser,
        }  # fmt: skip

    @torch.no_grad()
    def _label(
        self, anchors: Sequence[torch.Tensor], truth: Sequence[Mapping[str, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each image's cells the class (N, R), K for background, and the boxes (N, R, 4) of their objects."""
        every = torch.cat(list(anchors))
        least, most = ([side * part[:, 2].sub(part[:, 0]) for part in anchors] for side in
                       (LEAST_DISTANCE, MOST_DISTANCE))  # fmt: skip
        least[0] = torch.zeros_like(least[0])
        most[-1] = torch.full_like(most[-1], torch.inf)
        bounds = torch.cat(least), torch.cat(most)
        labels, matched = [], []
        for instances in truth:
            boxes, classes = instances["gt_boxes"], instances["gt_classes"]
            if not len(boxes):
                labels.append(torch.full((len(every),), self.num_classes, device=every.device))
                matched.append(torch.zeros_like(every))
                continue
            index, found = self._match(boxes, every, *bounds)
            labels.append(torch.where(found, classes[index], self.num_classes))
            matched.append(boxes[index])
        return torch.stack(labels), torch.stack(matched)

    def _match(
        self, boxes: torch.Tensor, anchors: torch.Tensor, least: torch.Tensor, most: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest of the objects that a cell is positive for: which (R,), and whether there is one (R,)."""
        area = box_ops.area(boxes)[:, None]
        middle = (boxes[:, :2] + boxes[:, 2:])[:, None] / 2
        indices, found = [], []
        size = max(OBJECTS_AT_ONCE // len(boxes), 1)
        for cells, low, high in zip(anchors.split(size), least.split(size), most.split(size)):
            centre, stride = _centres(cells)
            near = (centre - middle).abs().amax(2) < self.radius * stride
            sides = torch.cat([centre - boxes[:, None, :2], boxes[:, None, 2:] - centre], 2)
            farthest = sides.amax(2)
            fits = near & (sides.amin(2) > 0) & (farthest > low) & (farthest < high)
            # Of several of the same area the first, as the largest of equal numbers is Detectron2's.
            worth, index = torch.where(fits, 1e8 - area, 0.0).max(0)
            indices.append(index)
            found.append(worth >= 1e-5)
        return torch.cat(indices), torch.cat(found)


def _centres(anchors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres (n, 2) and sides (n,) of square boxes (n, 4)."""
    return (anchors[:, :2] + anchors[:, 2:]) * 0.5, anchors[:, 2] - anchors[:, 0]


def centreness_of(anchors: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """How far cells (n, 4) are from the middle of the boxes (n, 4) that they lie in: (n,), 1 there and 0 at a side
    (arXiv 1904.01355, equation 3)."""
    centre, _ = _centres(anchors)
    one, other = centre - boxes[:, :2], boxes[:, 2:] - centre
    shares = torch.minimum(one, other) / torch.maximum(one, other)
    return shares.prod(1).sqrt()


def check_fcos(cfg: CfgNode) -> None:
    """Refuse values of MODEL.FCOS that cannot be.

    Raises:
        ConfigError: naming the key.
    """
    check_ranges(cfg, RANGES)
    check_no_masks(cfg)


@META_ARCHITECTURES.register(name="FCOS")
def fcos(cfg: CfgNode) -> FCOS:
    """FCOS on the maps of MODEL.FCOS.IN_FEATURES."""
    keys = cfg.MODEL.FCOS
    return build_dense(
        cfg,
        FCOS,
        "FCOS",
        anchors=lambda strides: AnchorGenerator(
            sizes=[[side] for side in strides], aspect_ratios=[[1.0]], strides=strides, offset=keys.OFFSET
        ),
        centreness=True,
        radius=keys.POS_RADIUS,
        focal_alpha=keys.LOSS_ALPHA,
        focal_gamma=keys.LOSS_GAMMA,
        score_threshold=keys.INFERENCE_TH_TEST,
        topk=keys.PRE_NMS_TOPK_TEST,
        nms_threshold=keys.NMS_TH,
    )


MODEL_FACTS.register(
    ModelFacts(
        class_keys=("MODEL.FCOS.NUM_CLASSES",),
        tasks=lambda cfg: ("bbox",),
        norms=lambda cfg: ("MODEL.FPN.NORM", "MODEL.FCOS.NORM"),
        anchor_maps="",
        check=check_fcos,
    ),
    name="FCOS",
)
