"""What one-stage detectors share: every cell of every level predicts, and the best predictions are thinned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..backbones.trunk import image_area
from ..layers.running_mean import RunningMean
from ..layers.valid_area import ValidArea
from . import boxes as box_ops
from .anchors import AnchorGenerator
from .dense_head import DenseHead
from .finite import finite_rows
from .measured_part import MeasuredPart
from .nms import suppress
from .rcnn import Detector, resize_detections

# Above so many anchors of a level (an untrained network's, or of a threshold near 0) most are passed over before their
# classes are compared. Of equal scores others may then come first than in Detectron2.
MANY = 1 << 14


class DenseDetector(Detector):
    """A backbone and a head on its maps; a subclass has the losses and says what its deltas mean.

    Args:
        head: see `DenseHead`.
        features: names of the maps that it reads.
        anchor_generator: one box or several for each cell of each map.
        num_classes: K.
        start: of the moving average of the number of positive anchors, which losses are divided by.
        score_threshold, topk, nms_threshold, max_detections: what is kept in inference: scores above the first, of each
            level the best `topk`.
        clip_before_nms: boxes are cut off at the image's border before they are compared, not only after.
        shared: see `Detector`.
    """

    def __init__(
        self,
        *,
        head: DenseHead,
        features: Sequence[str],
        anchor_generator: AnchorGenerator,
        num_classes: int,
        start: float,
        score_threshold: float = 0.05,
        topk: int = 1000,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        clip_before_nms: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.head = head
        self.features = tuple(features)
        self.anchor_generator = anchor_generator
        self.num_classes = num_classes
        self.loss_normalizer = RunningMean(start)
        self.score_threshold = score_threshold
        self.topk = topk
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.clip_before_nms = clip_before_nms

    def inference_parts(self) -> list[nn.Module]:
        return [self.backbone, self.head]

    def score_layers(self) -> list[nn.Module]:
        return [self.head.cls_score]

    def head_costs(self, maps: Mapping[str, torch.Tensor]) -> list[MeasuredPart]:
        shapes = [tuple(maps[name].shape) for name in self.features]
        return [MeasuredPart("head", self.head, shapes, lambda x: self.head(x, [None] * len(x)))]

    def losses(
        self,
        anchors: Sequence[torch.Tensor],
        predictions: Sequence[Sequence[torch.Tensor]],
        outside: torch.Tensor | None,
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """The losses by name.

        Args:
            anchors: (H W A, 4) of each level.
            predictions: what the head gives.
            outside: (N, R) of all anchors, those outside their image, which do not count; None where all count.
            truth: `gt_boxes` and `gt_classes` of each image.
        """
        raise NotImplementedError

    def decode(self, deltas: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        """Boxes (n, 4) from deltas (n, 4) and anchors (n, 4)."""
        raise NotImplementedError

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """Losses in training mode, detections otherwise; samples and detections as those of `GeneralizedRCNN`."""
        if not self.training:
            return self.detect(samples)
        maps, areas, sizes = self.maps(samples)
        predictions, truth = self.head(maps, areas), self.truth(samples, sizes)
        return self.losses(self.anchor_generator(maps), predictions, self._outside(maps, areas), truth)

    def detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A dict for each image, {"instances": {`pred_boxes` (m, 4) XYXY px, `scores` (m,), `pred_classes` (m,)}},
        best first, in the size that is wanted."""
        maps, areas, sizes = self.maps(samples)
        predictions = self.head(maps, areas)
        outside = self._outside(maps, areas)
        found = self.candidates(self.anchor_generator(maps), predictions, outside)
        if self.clip_before_nms:
            found = [(box_ops.clip(boxes, *size), *rest) for (boxes, *rest), size in zip(found, sizes)]
        return [
            {"instances": resize_detections(self._thin(*one), size, s.get("height", size[0]), s.get("width", size[1]))}
            for one, size, s in zip(found, sizes, samples)
        ]

    def maps(
        self, samples: Sequence[Mapping[str, Any]]
    ) -> tuple[list[torch.Tensor], list[ValidArea | None], list[tuple[int, int]]]:
        """The maps that the head reads, the images' areas on them, the images' sizes."""
        x, sizes = self.batch([s["image"] for s in samples])
        maps, areas = self.backbone.features(x, image_area(self.backbone.padding, sizes))
        return [maps[name] for name in self.features], [areas[name] for name in self.features], sizes

    def _outside(self, maps: Sequence[torch.Tensor], areas: Sequence[ValidArea | None]) -> torch.Tensor | None:
        """Under padding "exact", (N, R): the anchors of cells outside each image."""
        if all(area is None or not area.exact or area.covers(x) for x, area in zip(maps, areas)):
            return None
        per_cell = self.anchor_generator.anchors_per_cell
        masks = [area.mask(x).flatten(1)[..., None].expand(-1, -1, per_cell) for x, area in zip(maps, areas)]
        return ~torch.cat([mask.flatten(1) for mask in masks], 1)

    def _scores(self, logits: torch.Tensor, centreness: torch.Tensor | None) -> torch.Tensor:
        """Logits (n,) and what says how central a cell is (n,) to scores (n,)."""
        if centreness is None:
            return logits.sigmoid()
        return (logits.sigmoid() * centreness.sigmoid()).sqrt()

    def candidates(
        self,
        anchors: Sequence[torch.Tensor],
        predictions: Sequence[Sequence[torch.Tensor]],
        outside: torch.Tensor | None,
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Boxes (m, 4), scores (m,) and classes (m,) of each image before NMS, level after level, the best of each
        first.

        Raises:
            WeightsError: predictions are not finite.
        """
        logits, deltas, centreness = predictions
        found: list[list[tuple[torch.Tensor, ...]]] = [[] for _ in range(len(logits[0]))]
        start = 0
        for level, level_anchors in enumerate(anchors):
            end = start + len(level_anchors)
            for row, images in enumerate(found):
                where = None if outside is None else outside[row, start:end]
                middle = centreness[level][row] if len(centreness) > 0 else None
                scores, at, label = self._best(logits[level][row], middle, where)
                images.append((self.decode(deltas[level][row][at], level_anchors[at]), scores, label))
            start = end
        together = [tuple(torch.cat(parts) for parts in zip(*images)) for images in found]
        kept = [finite_rows(boxes, scores[:, None]).nonzero()[:, 0] for boxes, scores, _ in together]
        return [(boxes[at], scores[at], classes[at]) for (boxes, scores, classes), at in zip(together, kept)]

    def _best(
        self, logits: torch.Tensor, centreness: torch.Tensor | None, outside: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The best scores (m,) of one level of an image, their anchors (m,) and classes (m,).

        Args:
            logits, centreness, outside: (R, K), (R,) and (R,) of the level's anchors.
        """
        kind = torch.promote_types(logits.dtype, torch.float32)
        middle = None if centreness is None else centreness.to(kind)
        # Most anchors are passed over by their best class. What is not a number is above the threshold here, and
        # dropped or refused later.
        best = self._scores(logits.amax(1).to(kind), middle)
        if outside is not None:
            best = best.masked_fill(outside, -1.0)
        anchors = (~(best <= self.score_threshold)).nonzero()[:, 0]
        if len(anchors) > max(self.topk, MANY):
            # The best predictions are of the best anchors.
            anchors = anchors[best[anchors].topk(self.topk).indices.sort().values]
        scores = self._scores(logits[anchors].to(kind), None if middle is None else middle[anchors, None])
        at, label = (~(scores <= self.score_threshold)).nonzero(as_tuple=True)
        scores, chosen = scores[at, label].topk(min(self.topk, len(at)))
        return scores, anchors[at[chosen]], label[chosen]

    def _thin(self, boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor) -> dict[str, torch.Tensor]:
        keep, scores = suppress(boxes, scores, classes, threshold=self.nms_threshold, most=self.max_detections)
        return {"pred_boxes": boxes[keep], "scores": scores, "pred_classes": classes[keep]}
