"""Region proposal network (Ren et al., arXiv 1506.01497) on a pyramid, with Detectron2's numerics and names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import TrainingError, WeightsError
from ..layers.kernels import triton_runs_on
from ..layers.tracing import is_traced
from ..layers.valid_area import ValidArea
from . import boxes as box_ops
from .anchors import AnchorGenerator
from .box_loss import box_loss
from .matching import match, sample, true_indices_first
from .measured_part import MeasuredPart
from .operators import batched_nms
from .rpn_head import RPNHead


@dataclass(frozen=True)
class SampledAnchors:
    """The anchors that the losses are computed on, (N, k) each.

    Args:
        at: positions among the anchors of all levels one after another.
        filled: whether a place holds an anchor at all.
        labels: 1 where the anchor is on an object, 0 on background.
        boxes: (N, k, 4) the anchors.
        targets: (N, k, 4) the boxes of their objects; the anchors themselves where the label is not 1.
    """

    at: torch.Tensor
    filled: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor
    targets: torch.Tensor


class RPN(nn.Module):
    """Proposals, and in training the loss of proposing.

    Args:
        head: see `RPNHead`.
        anchor_generator: see `AnchorGenerator`.
        batch_size_per_image, positive_fraction: how many anchors the loss samples, and how many may be positive.
        iou_thresholds, iou_labels: see `matching.match`.
        box_weights: factors of the deltas.
        box_loss_type, smooth_l1_beta: see `box_loss.box_loss`.
        loss_weight, box_loss_weight: factors of both losses, and of the box loss besides.
        pre_nms_topk, post_nms_topk: (training, test): proposals of a level that enter NMS, of an image that leave it.
        nms_threshold: IoU.
        min_size: sides of proposals must exceed this many px.

    Attributes:
        triton: whether NMS of all images and levels is done at once by our Triton kernels.
    """

    triton = False

    def __init__(
        self,
        *,
        head: RPNHead,
        anchor_generator: AnchorGenerator,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
        iou_thresholds: Sequence[float] = (0.3, 0.7),
        iou_labels: Sequence[int] = (0, -1, 1),
        box_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        box_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
        loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
        pre_nms_topk: tuple[int, int] = (2000, 1000),
        post_nms_topk: tuple[int, int] = (1000, 1000),
        nms_threshold: float = 0.7,
        min_size: float = 0.0,
    ) -> None:
        super().__init__()
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.iou_thresholds = tuple(iou_thresholds)
        self.iou_labels = tuple(iou_labels)
        self.box_weights = tuple(box_weights)
        self.box_loss_type = box_loss_type
        self.smooth_l1_beta = smooth_l1_beta
        self.loss_weight = loss_weight
        self.box_loss_weight = box_loss_weight
        self.pre_nms_topk = pre_nms_topk
        self.post_nms_topk = post_nms_topk
        self.nms_threshold = nms_threshold
        self.min_size = min_size

    def forward(
        self,
        maps: Sequence[torch.Tensor],
        areas: Sequence[ValidArea | None],
        image_sizes: Sequence[tuple[int, int]],
        truth: Sequence[torch.Tensor] | None = None,
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], dict[str, torch.Tensor]]:
        """Propose.

        Args:
            maps: (N, C, H, W) of each level; `areas` says where each image lies on them.
            image_sizes: (height, width) px of each image.
            truth: (g, 4) boxes of each image, in training.

        Returns:
            (boxes (p, 4), objectness logits (p,)) of each image, best first; and the losses.
        """
        anchors = self.anchor_generator(maps)
        sampled = None if truth is None else self.sample(anchors, truth)
        few = sampled is not None and self.rpn_head.prefers_sparse(sampled.at.shape[1], maps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not few), _casts_not_kept(maps[0].device.type, few):
            logits, deltas = self.rpn_head(maps, areas)
        losses = {}
        if few:
            losses = self.losses(sampled, *self.rpn_head.forward_sparse(maps, areas, sampled.at))
        elif sampled is not None:
            losses = self.losses(sampled, *gather_anchors(logits, deltas, sampled.at))
        with torch.no_grad():
            logits = [level.detach().to(torch.promote_types(level.dtype, torch.float32)) for level in logits]
            for index, (x, area) in enumerate(zip(maps, areas)):
                if area is not None and area.exact and not area.covers(x):
                    logits[index] = self._mask_outside(logits[index], x, area)
            deltas = [level.detach().to(torch.promote_types(level.dtype, torch.float32)) for level in deltas]
            proposals = self.predict_proposals(anchors, logits, deltas, image_sizes)
        return proposals, losses

    def cost(self, shapes: list[tuple[int, ...]]) -> MeasuredPart:
        """The head on maps of these shapes (N, C, H, W), to be measured."""
        head = self.rpn_head
        return MeasuredPart("proposal_generator.rpn_head", head, shapes, lambda x: head(x, [None] * len(x)))

    def _mask_outside(self, logits: torch.Tensor, x: torch.Tensor, area: ValidArea) -> torch.Tensor:
        """Anchors of cells outside an image never reach the top."""
        inside = area.mask(x).flatten(1)[..., None].expand(-1, -1, self.anchor_generator.anchors_per_cell).flatten(1)
        return logits.masked_fill(~inside, -torch.inf)

    @torch.no_grad()
    def sample(self, anchors: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> SampledAnchors:
        """Label the anchors of each image, and draw those that the losses are computed on."""
        anchors = torch.cat(list(anchors))
        labels, targets = [], []
        for boxes in truth:
            index, label = match(
                boxes, anchors, thresholds=self.iou_thresholds, labels=self.iou_labels, allow_low_quality=True
            )
            labels.append(label)
            targets.append(index)
        labels = torch.stack(labels)
        at, filled = sample(labels, self.batch_size_per_image, self.positive_fraction)
        labels = labels.gather(1, at)
        chosen = anchors[at]
        # Places that are not positive get the anchor itself for target: their terms are dropped, but are finite.
        matched = [
            boxes[index[row]] if len(boxes) else own for boxes, index, row, own in zip(truth, targets, at, chosen)
        ]
        positive = filled & (labels == 1)
        targets = torch.where(positive[..., None], torch.stack(matched), chosen)
        return SampledAnchors(at, filled, labels, chosen, targets)

    def losses(self, sampled: SampledAnchors, logits: torch.Tensor, deltas: torch.Tensor) -> dict[str, torch.Tensor]:
        """Binary cross-entropy and the boxes' loss over sampled anchors, both divided by N x `batch_size_per_image`.

        Args:
            logits, deltas: (N, k) and (N, k, 4), of the sampled anchors.
        """
        targets, filled = sampled.targets, sampled.filled
        objectness = F.binary_cross_entropy_with_logits(
            logits.to(targets.dtype), sampled.labels.to(targets.dtype), reduction="none"
        )
        distance = box_loss(
            deltas, sampled.boxes, targets, weights=self.box_weights, kind=self.box_loss_type, beta=self.smooth_l1_beta
        )
        normaliser = self.batch_size_per_image * len(filled)
        objectness = torch.where(filled, objectness, 0.0).sum() / normaliser
        positive = filled & (sampled.labels == 1)
        distance = torch.where(positive[..., None], distance, 0.0).sum() / normaliser
        return {
            "loss_rpn_cls": objectness * self.loss_weight,
            "loss_rpn_loc": distance * (self.loss_weight * self.box_loss_weight),
        }

    def predict_proposals(
        self,
        anchors: Sequence[torch.Tensor],
        logits: Sequence[torch.Tensor],
        deltas: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The best anchors of each level, moved by their deltas, clipped, and thinned by NMS within each level.

        Raises:
            TrainingError: in training, predictions that are not finite.
        """
        pre_topk = self.pre_nms_topk[0 if self.training else 1]
        post_topk = self.post_nms_topk[0 if self.training else 1]
        scores, sources, moves, levels = [], [], [], []
        for level, (level_anchors, level_logits, level_deltas) in enumerate(zip(anchors, logits, deltas)):
            best, at = level_logits.topk(min(pre_topk, level_logits.shape[1]), dim=1)
            scores.append(best)
            sources.append(level_anchors[at])
            moves.append(level_deltas.gather(1, at[..., None].expand(-1, -1, 4)))
            levels.append(torch.full((at.shape[1],), level, device=at.device))
        per_level, scores, levels = scores, torch.cat(scores, 1), torch.cat(levels)
        boxes = box_ops.decode(torch.cat(moves, 1), torch.cat(sources, 1), self.box_weights)
        # -inf marks what lies outside an image; NaN and +inf can only come from diverged weights.
        finite = torch.isfinite(boxes).all(2) & ~torch.isnan(scores) & (scores < torch.inf)
        clipped = torch.stack([box_ops.clip(boxes[row], *size) for row, size in enumerate(image_sizes)])
        kept = finite & torch.isfinite(scores) & box_ops.nonempty(clipped, self.min_size)
        together = self.triton and triton_runs_on(scores.device) and not is_traced()
        if together:
            sizes = [best.shape[1] for best in per_level]
            best, thinned = self._thin_together(clipped, scores, kept, sizes, post_topk)
        # One look at the device for all images.
        numbers = [finite.all()[None], kept.sum(1), *([thinned] if together else [])]
        all_finite, *counts = torch.cat(numbers).tolist()
        counts, left = counts[: len(kept)], counts[len(kept) :]
        if self.training and not all_finite:
            raise TrainingError(
                "The proposals are not finite: the training has diverged. Lower SOLVER.BASE_LR, warm up longer "
                "(SOLVER.WARMUP_ITERS), or clip gradients (SOLVER.CLIP_GRADIENTS.ENABLED True)."
            )
        if not is_traced() and not all_finite and not min(counts):
            raise WeightsError(
                "No usable proposal is left for an image; some are not finite although the weights are: activations "
                "overflow in this precision (TEST.PRECISION, SOLVER.AMP.DTYPE), or the training has diverged. Use "
                "TEST.PRECISION float32, or an earlier checkpoint."
            )
        if together:
            return [(clipped[row][at[:n]], scores[row][at[:n]]) for row, (at, n) in enumerate(zip(best, left))]
        results = []
        for row, count in enumerate(counts):
            at = true_indices_first(kept[row])[:count]
            image_boxes, image_scores = clipped[row][at], scores[row][at]
            keep = batched_nms(image_boxes, image_scores, levels[at], self.nms_threshold)[:post_topk]
            results.append((image_boxes[keep], image_scores[keep]))
        return results

    def _thin_together(
        self, boxes: torch.Tensor, scores: torch.Tensor, kept: torch.Tensor, sizes: Sequence[int], post_topk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """NMS within each level of all images, without waiting for the device.

        Args:
            boxes, scores, kept: (N, A, 4), (N, A) and (N, A), level after level, each with its best first.
            sizes: of the levels.

        Returns:
            Positions (N, k), the best first, and how many of them each image has (N,).
        """
        from .triton_nms import nms_of_rows

        longest = max(sizes)
        rows = [F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in boxes.split(list(sizes), 1)]
        valid = [F.pad(part, (0, longest - part.shape[1])) for part in kept.split(list(sizes), 1)]
        stays = nms_of_rows(torch.stack(rows, 1).flatten(0, 1), torch.stack(valid, 1).flatten(0, 1), self.nms_threshold)
        stays = stays.view(len(boxes), len(sizes), longest)
        stays = torch.cat([stays[:, level, :size] for level, size in enumerate(sizes)], 1)
        ranked = torch.where(stays, scores, -torch.inf)
        best = ranked.topk(min(post_topk, ranked.shape[1]), dim=1).indices
        return best, stays.sum(1).clamp(max=post_topk)


def _casts_not_kept(device_type: str, wanted: bool) -> AbstractContextManager:
    """Under autocast a pass without gradients leaves nothing behind: a copy of a weight made there knows no gradient,
    and the next pass would take it for its own."""
    if not wanted or not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, dtype=torch.get_autocast_dtype(device_type), cache_enabled=False)


def gather_anchors(
    logits: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor], at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of what `RPNHead.forward` returns, the logits (N, k) and deltas (N, k, 4) of the anchors at positions (N, k)."""
    at4 = at[..., None].expand(-1, -1, 4)
    return torch.cat(list(logits), 1).gather(1, at), torch.cat(list(deltas), 1).gather(1, at4)
