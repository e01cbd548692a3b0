"""The box head of Fast R-CNN: fully connected layers, class scores, deltas per class, losses and inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.conv import Conv2d
from . import boxes as box_ops
from .box_loss import box_loss
from .finite import finite_rows
from .nms import suppress
from .sigmoid_loss import federated_classes, sigmoid_cross_entropy


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
        box_loss_type, smooth_l1_beta: see `box_loss.box_loss`.
        box_loss_weight: factor of the box loss.
        sigmoid: each class has a score of its own (see `sigmoid_loss`), in place of one softmax.
        federated: how many classes that loss is computed on, drawn by the buffer `fed_loss_cls_weights`, which a
            training fills from its data; 0: all of them.
        score_threshold, nms_threshold, nms_type, nms_sigma, max_detections: what is kept in inference, see `nms`.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_classes: int,
        class_agnostic: bool = False,
        box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        box_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
        box_loss_weight: float = 1.0,
        sigmoid: bool = False,
        federated: int = 0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        nms_type: str = "hard",
        nms_sigma: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.box_weights = tuple(box_weights)
        self.box_loss_type = box_loss_type
        self.smooth_l1_beta = smooth_l1_beta
        self.box_loss_weight = box_loss_weight
        self.sigmoid = sigmoid
        self.federated = federated
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.nms_type = nms_type
        self.nms_sigma = nms_sigma
        self.max_detections = max_detections
        self.cls_score = nn.Linear(in_features, num_classes + 1)
        self.bbox_pred = nn.Linear(in_features, 4 if class_agnostic else 4 * num_classes)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)
        if federated:
            self.register_buffer("fed_loss_cls_weights", torch.ones(num_classes))

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
        """Cross-entropy averaged over all boxes, and the box loss of the positive ones over the number of all boxes.

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
        if not self.class_agnostic:
            index = classes.clamp(max=self.num_classes - 1)[:, None, None].expand(-1, 1, 4)
            deltas = deltas.unflatten(1, (-1, 4)).gather(1, index)[:, 0]
        distance = box_loss(
            deltas, proposals, targets, weights=self.box_weights, kind=self.box_loss_type, beta=self.smooth_l1_beta
        )
        distance = torch.where(positive[:, None], distance, 0.0).sum() / len(classes)
        return {
            "loss_cls": self._class_loss(scores, classes),
            "loss_box_reg": distance * self.box_loss_weight,
        }

    def _class_loss(self, scores: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        if not self.sigmoid:
            return F.cross_entropy(scores, classes)
        kept = federated_classes(classes, self.fed_loss_cls_weights, self.federated) if self.federated else None
        return sigmoid_cross_entropy(scores, classes, kept)

    @torch.no_grad()
    def boxes_of_classes(self, deltas: torch.Tensor, proposals: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """(n, 4): proposals (n, 4) moved as the deltas of these classes (n,) say; any where background."""
        boxes = box_ops.decode(deltas.detach(), proposals, self.box_weights)
        if self.class_agnostic:
            return boxes
        index = classes.clamp(max=self.num_classes - 1)[:, None, None].expand(-1, 1, 4)
        return boxes.unflatten(1, (-1, 4)).gather(1, index)[:, 0]

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """(n, K + 1) logits to probabilities, in float32 at least."""
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return scores.sigmoid() if self.sigmoid else F.softmax(scores, -1)

    def detect(
        self,
        scores: torch.Tensor,
        deltas: torch.Tensor,
        proposals: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, torch.Tensor]]:
        """Detections of each image: {"pred_boxes" (m, 4), "scores" (m,), "pred_classes" (m,)}, best first."""
        return self.detect_probable(self.probabilities(scores), deltas, proposals, image_sizes)

    def detect_probable(
        self,
        probabilities: torch.Tensor,
        deltas: torch.Tensor,
        proposals: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, torch.Tensor]]:
        """`detect` of what `probabilities` (n, K + 1) gives, or the mean of several predictors' is."""
        counts = [len(p) for p in proposals]
        boxes = box_ops.decode(deltas, torch.cat(list(proposals)), self.box_weights).split(counts)
        return [self._detect_one(b, p, size) for b, p, size in zip(boxes, probabilities.split(counts), image_sizes)]

    def _detect_one(
        self, boxes: torch.Tensor, probabilities: torch.Tensor, size: tuple[int, int]
    ) -> dict[str, torch.Tensor]:
        finite = finite_rows(boxes, probabilities)
        # One look at the device finds all candidates; a box that is not finite has none.
        candidate = (probabilities[:, :-1] > self.score_threshold) & finite[:, None]
        row, label = candidate.nonzero(as_tuple=True)
        score = probabilities[row, label]
        boxes = boxes.unflatten(1, (-1, 4))
        boxes = box_ops.clip(boxes[row, 0 if self.class_agnostic else label], *size)
        return self.select(boxes, score, label)

    def select(self, boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor) -> dict[str, torch.Tensor]:
        """What non-maximum suppression leaves of an image's candidates (n, 4), (n,), (n,), as `detect` gives it."""
        keep, scores = suppress(
            boxes, scores, classes,
            threshold=self.nms_threshold, most=self.max_detections, kind=self.nms_type, sigma=self.nms_sigma,
        )  # fmt: skip
        return {"pred_boxes": boxes[keep], "scores": scores, "pred_classes": classes[keep]}
