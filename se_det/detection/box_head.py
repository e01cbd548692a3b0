"""The box head of Fast R-CNN: fully connected layers, class scores, deltas per class, losses and inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import WeightsError
from ..layers.conv import Conv2d
from ..layers.tracing import is_traced
from . import boxes as box_ops
from .operators import batched_nms


class BoxHead(nn.Sequential):
    """Convolutions, then fully connected layers with ReLU (Detectron2's FastRCNNConvFCHead).

    Args:
        in_channels, resolution: of the pooled features.
        conv_dims, fc_dims: widths of the layers.
        norm: norm of the convolutions.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        resolution: int,
        conv_dims: Sequence[int] = (),
        fc_dims: Sequence[int],
        norm: str = "",
    ) -> None:
        super().__init__()
        channels = in_channels
        for number, dim in enumerate(conv_dims, start=1):
            conv = Conv2d(channels, dim, 3, padding=1, norm=norm)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"conv_relu{number}", nn.ReLU(inplace=True))
            channels = dim
        self.pooled = (channels, resolution)  # what the first linear layer reads
        features = channels * resolution**2
        for number, dim in enumerate(fc_dims, start=1):
            if number == 1:
                self.add_module("flatten", nn.Flatten())
            layer = nn.Linear(features, dim)
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
            self.add_module(f"fc{number}", layer)
            self.add_module(f"fc_relu{number}", nn.ReLU(inplace=True))
            features = dim
        self.out_features = features


class BoxPredictor(nn.Module):
    """Scores of K classes and background (last), and deltas.

    Args:
        in_features: width of the head's output.
        num_classes: K.
        class_agnostic: one set of deltas for all classes.
        box_weights: factors of the deltas.
        smooth_l1_beta: 0 is L1.
        box_loss_weight: factor of the box loss.
        score_threshold, nms_threshold, max_detections: what is kept in inference.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_classes: int,
        class_agnostic: bool = False,
        box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        smooth_l1_beta: float = 0.0,
        box_loss_weight: float = 1.0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.box_weights = tuple(box_weights)
        self.smooth_l1_beta = smooth_l1_beta
        self.box_loss_weight = box_loss_weight
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.cls_score = nn.Linear(in_features, num_classes + 1)
        self.bbox_pred = nn.Linear(in_features, 4 if class_agnostic else 4 * num_classes)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, in_features) to scores (n, K + 1) and deltas (n, 4 K or 4)."""
        return self.cls_score(x), self.bbox_pred(x)

    def losses(
        self,
        scores: torch.Tensor,
        deltas: torch.Tensor,
        proposals: torch.Tensor,
        classes: torch.Tensor,
        truth: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy averaged over all boxes, and (smooth) L1 of the positive ones over the number of all boxes.

        Args:
            proposals: (n, 4).
            classes: (n,), K for background.
            truth: (n, 4) the matched ground truth; anything where background.
        """
        if len(classes) == 0:
            zero = scores.sum() * 0.0 + deltas.sum() * 0.0
            return {"loss_cls": zero, "loss_box_reg": zero}
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        positive = classes < self.num_classes
        targets = torch.where(positive[:, None], truth, proposals)
        targets = box_ops.encode(proposals, targets, self.box_weights)
        if not self.class_agnostic:
            index = classes.clamp(max=self.num_classes - 1)[:, None, None].expand(-1, 1, 4)
            deltas = deltas.unflatten(1, (-1, 4)).gather(1, index)[:, 0]
        distance = box_ops.smooth_l1(deltas.to(targets.dtype), targets, self.smooth_l1_beta)
        distance = torch.where(positive[:, None], distance, 0.0).sum() / len(classes)
        return {
            "loss_cls": F.cross_entropy(scores, classes),
            "loss_box_reg": distance * self.box_loss_weight,
        }

    def detect(
        self,
        scores: torch.Tensor,
        deltas: torch.Tensor,
        proposals: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, torch.Tensor]]:
        """Detections of each image: {"pred_boxes" (m, 4), "scores" (m,), "pred_classes" (m,)}, best first."""
        counts = [len(p) for p in proposals]
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        probabilities = F.softmax(scores, -1).split(counts)
        boxes = box_ops.decode(deltas, torch.cat(list(proposals)), self.box_weights).split(counts)
        return [self._detect_one(b, p, size) for b, p, size in zip(boxes, probabilities, image_sizes)]

    def _detect_one(
        self, boxes: torch.Tensor, probabilities: torch.Tensor, size: tuple[int, int]
    ) -> dict[str, torch.Tensor]:
        finite = torch.isfinite(boxes).all(1) & torch.isfinite(probabilities).all(1)
        if not is_traced() and len(finite) and not finite.any():
            raise WeightsError(
                "All boxes of an image are NaN or infinite although the weights are finite: activations overflow in "
                "this precision (TEST.PRECISION, SOLVER.AMP.DTYPE), or the training has diverged. Use TEST.PRECISION "
                "float32, or an earlier checkpoint."
            )
        # One look at the device finds all candidates; a box that is not finite has none.
        candidate = (probabilities[:, :-1] > self.score_threshold) & finite[:, None]
        row, label = candidate.nonzero(as_tuple=True)
        score = probabilities[row, label]
        boxes = boxes.unflatten(1, (-1, 4))
        boxes = box_ops.clip(boxes[row, 0 if self.class_agnostic else label], *size)
        keep = batched_nms(boxes, score, label, self.nms_threshold)[: self.max_detections]
        return {"pred_boxes": boxes[keep], "scores": score[keep], "pred_classes": label[keep]}
