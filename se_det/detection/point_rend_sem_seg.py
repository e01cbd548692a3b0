"""PointRend for classes of pixels (Kirillov et al., arXiv 1912.08193, section 3), with Detectron2's parameter names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .point_rend import PointHead
from .point_sampling import sample_grid
from .sem_seg_head import Areas, SemSegFPNHead


class PointRendSemSegHead(nn.Module):
    """A coarse head, whose logits are made finer where the two surest classes are close.

    Args:
        coarse_head: see `SemSegFPNHead`.
        point_head: see `PointHead`.
        in_features: the maps that points are read from.
        train_points, oversample, importance: see `point_sampling.uncertain_points`.
        subdivisions: how often the coarse logits are doubled in inference.
        subdivision_points: how many points of an image are looked at anew each time.
    """

    def __init__(
        self,
        *,
        coarse_head: SemSegFPNHead,
        point_head: PointHead,
        in_features: Sequence[str],
        train_points: int,
        oversample: float = 3,
        importance: float = 0.75,
        subdivisions: int = 2,
        subdivision_points: int = 8192,
    ) -> None:
        super().__init__()
        self.coarse_sem_seg_head = coarse_head
        self.point_head = point_head
        self.in_features = tuple(in_features)
        self.train_points, self.oversample, self.importance = train_points, oversample, importance
        self.subdivisions, self.subdivision_points = subdivisions, subdivision_points
        self._points: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def strides(self) -> dict[str, int]:
        """Of the maps that the coarse head reads."""
        return self.coarse_sem_seg_head.strides

    @property
    def num_classes(self) -> int:
        """K."""
        return self.coarse_sem_seg_head.num_classes

    @property
    def predictor(self) -> nn.Module:
        """The coarse head's layer of scores."""
        return self.coarse_sem_seg_head.predictor

    def inference_parts(self) -> list[nn.Module]:
        """All but the layers of scores and the point head."""
        return self.coarse_sem_seg_head.inference_parts()

    def forward(self, maps: Mapping[str, torch.Tensor], areas: Areas) -> torch.Tensor:
        """As `SemSegFPNHead.forward`: in training the coarse logits, and the points' are kept for `loss`; otherwise the
        refined ones."""
        coarse = self.coarse_sem_seg_head.coarse(maps, areas)
        if self.training:
            points = self._train_points(coarse.detach())
            self._points = points, self._refined(maps, coarse, points)
            return self.coarse_sem_seg_head.enlarged(coarse)
        logits = coarse
        for _ in range(self.subdivisions):
            logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
            height, width = logits.shape[-2:]
            count = min(self.subdivision_points, height * width)
            at = uncertainty(logits.flatten(2)).topk(count, dim=1).indices
            cells = torch.stack([at % width, torch.div(at, width, rounding_mode="floor")], 2)
            step = logits.new_tensor([1 / width, 1 / height])
            points = cells * step + step / 2
            found = self._refined(maps, coarse, points)
            logits = logits.flatten(2).scatter(2, at[:, None].expand_as(found), found).unflatten(2, (height, width))
        return logits

    def loss(self, logits: torch.Tensor, labels: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """`loss_sem_seg` of the coarse logits, and `loss_sem_seg_point`, the mean cross-entropy of labelled points."""
        losses = self.coarse_sem_seg_head.loss(logits, labels)
        (points, found), self._points = self._points, None
        target = self.coarse_sem_seg_head.padded_labels(logits, labels)
        at = F.grid_sample(
            target[:, None].float(), 2.0 * points[:, :, None] - 1.0, mode="nearest", align_corners=False
        )[:, 0, :, 0].long()  # fmt: skip
        ignore = self.coarse_sem_seg_head.ignore_value
        total = F.cross_entropy(found, at, reduction="sum", ignore_index=ignore)
        return {**losses, "loss_sem_seg_point": total / (at != ignore).sum().clamp(min=1)}

    @torch.no_grad()
    def _train_points(self, coarse: torch.Tensor) -> torch.Tensor:
        """(N, P, 2) in shares of the map: the most uncertain of many, and others."""
        points = torch.rand(len(coarse), int(self.train_points * self.oversample), 2, device=coarse.device)
        chosen = int(self.importance * self.train_points)
        at = uncertainty(sample_grid(coarse, points)).topk(chosen, dim=1).indices
        points = points.gather(1, at[..., None].expand(-1, -1, 2))
        rest = torch.rand(len(coarse), self.train_points - chosen, 2, device=coarse.device)
        return torch.cat([points, rest], 1)

    def _refined(self, maps: Mapping[str, torch.Tensor], coarse: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Logits (N, K, P) of points (N, P, 2)."""
        dtype = self.point_head.predictor.weight.dtype
        fine = torch.cat([sample_grid(maps[name].to(dtype), points.to(dtype)) for name in self.in_features], 1)
        return self.point_head(fine, sample_grid(coarse, points)).to(coarse.dtype)


def uncertainty(logits: torch.Tensor) -> torch.Tensor:
    """Of logits (N, K, P) how little the surest class is surer than the next: (N, P), at most 0."""
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return second - first
