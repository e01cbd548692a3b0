"""RetinaNet (Lin et al., arXiv 1708.02002), with Detectron2's keys, names and numerics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode

from ...backbones.trunk import check_choice
from ...config.validation import check_matching, check_ranges
from ...weights import ClassLayout, register_class_rows
from .. import boxes as box_ops
from ..box_loss import BOX_LOSSES, box_loss
from ..build import build_anchor_generator, check_no_masks
from ..build_dense import build_dense
from ..dense import DenseDetector
from ..focal_loss import focal_loss
from ..matching import match
from ..registry import META_ARCHITECTURES, MODEL_FACTS, ModelFacts

RANGES = {
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": (0, None),
    "MODEL.RETINANET.NMS_THRESH_TEST": (0, 1),
    "MODEL.RETINANET.NUM_CLASSES": (1, None),
    "MODEL.RETINANET.NUM_CONVS": (0, None),
    "MODEL.RETINANET.PRIOR_PROB": (1e-6, 1 - 1e-6),
    "MODEL.RETINANET.SCORE_THRESH_TEST": (0, 1),
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": (0, None),
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": (1, None),
}


class RetinaNet(DenseDetector):
    """A one-stage detector with anchors.

    Args:
        iou_thresholds, iou_labels: see `matching.match`.
        box_weights: factors of the deltas.
        box_loss_type, smooth_l1_beta: see `box_loss.box_loss`.
        focal_alpha, focal_gamma: see `focal_loss`.
        dense: see `DenseDetector`.
    """

    def __init__(
        self,
        *,
        iou_thresholds: Sequence[float] = (0.4, 0.5),
        iou_labels: Sequence[int] = (0, -1, 1),
        box_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        box_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        **dense: Any,
    ) -> None:
        super().__init__(start=100, **dense)
        self.iou_thresholds = tuple(iou_thresholds)
        self.iou_labels = tuple(iou_labels)
        self.box_weights = tuple(box_weights)
        self.box_loss_type = box_loss_type
        self.smooth_l1_beta = smooth_l1_beta
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma

    def decode(self, deltas: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        return box_ops.decode(deltas, anchors, self.box_weights)

    def losses(
        self,
        anchors: Sequence[torch.Tensor],
        predictions: Sequence[Sequence[torch.Tensor]],
        outside: torch.Tensor | None,
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """`loss_cls` over all anchors that are not ignored and `loss_box_reg` over the positive ones, both divided by
        the moving average of the number of positive anchors of a batch."""
        logits, deltas, _ = predictions
        all_anchors = torch.cat(list(anchors))
        labels, boxes = self._label(all_anchors, truth)
        if outside is not None:
            labels = labels.masked_fill(outside, -1)
        positive = (labels >= 0) & (labels < self.num_classes)
        normaliser = self.loss_normalizer(positive.sum().clamp(min=1))
        of_classes = focal_loss(torch.cat(logits, 1), labels, alpha=self.focal_alpha, gamma=self.focal_gamma)
        image, at = positive.nonzero(as_tuple=True)
        distance = box_loss(
            torch.cat(deltas, 1)[image, at], all_anchors[at], boxes[image, at],
            weights=self.box_weights, kind=self.box_loss_type, beta=self.smooth_l1_beta,
        )  # fmt: skip
        return {"loss_cls": of_classes / normaliser, "loss_box_reg": distance.sum() / normaliser}

    @torch.no_grad()
    def _label(
        self, anchors: torch.Tensor, truth: Sequence[Mapping[str, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each image's anchors the class (N, R), K for background and -1 for those that are ignored, and the boxes
        (N, R, 4) of their objects."""
        labels, matched = [], []
        for instances in truth:
            boxes, classes = instances["gt_boxes"], instances["gt_classes"]
            index, label = match(
                boxes, anchors, thresholds=self.iou_thresholds, labels=self.iou_labels, allow_low_quality=True
            )
            own = classes[index] if len(boxes) else torch.full_like(index, self.num_classes)
            own = torch.where(label == 0, self.num_classes, own)
            labels.append(torch.where(label == -1, -1, own))
            matched.append(boxes[index] if len(boxes) else torch.zeros_like(anchors))
        return torch.stack(labels), torch.stack(matched)


def check_retinanet(cfg: CfgNode) -> None:
    """Refuse values of MODEL.RETINANET that cannot be.

    Raises:
        ConfigError: naming the key.
    """
    check_ranges(cfg, RANGES)
    check_matching(cfg, "RETINANET")
    check_choice("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE, BOX_LOSSES)
    check_no_masks(cfg)


@META_ARCHITECTURES.register(name="RetinaNet")
def retinanet(cfg: CfgNode) -> RetinaNet:
    """RetinaNet on the maps of MODEL.RETINANET.IN_FEATURES."""
    keys = cfg.MODEL.RETINANET
    return build_dense(
        cfg,
        RetinaNet,
        "RETINANET",
        anchors=lambda strides: build_anchor_generator(cfg, strides),
        iou_thresholds=keys.IOU_THRESHOLDS,
        iou_labels=keys.IOU_LABELS,
        box_weights=keys.BBOX_REG_WEIGHTS,
        box_loss_type=keys.BBOX_REG_LOSS_TYPE,
        smooth_l1_beta=keys.SMOOTH_L1_LOSS_BETA,
        focal_alpha=keys.FOCAL_LOSS_ALPHA,
        focal_gamma=keys.FOCAL_LOSS_GAMMA,
        score_threshold=keys.SCORE_THRESH_TEST,
        topk=keys.TOPK_CANDIDATES_TEST,
        nms_threshold=keys.NMS_THRESH_TEST,
    )


MODEL_FACTS.register(
    ModelFacts(
        class_keys=("MODEL.RETINANET.NUM_CLASSES",),
        tasks=lambda cfg: ("bbox",),
        norms=lambda cfg: ("MODEL.FPN.NORM", "MODEL.RETINANET.NORM"),
        anchor_maps="MODEL.RETINANET.IN_FEATURES",
        check=check_retinanet,
    ),
    name="RetinaNet",
)
# Rows of each anchor of a cell, of each class.
register_class_rows(r"head\.cls_score\.", ClassLayout(repeated=True))
