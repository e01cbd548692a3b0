"""PointRend's mask head (Kirillov et al., arXiv 1912.08193): a coarse mask, made finer where it is uncertain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.conv import Conv2d
from ..layers.tracing import is_traced
from .masks import crop_masks
from .measured_part import MeasuredPart
from .point_sampling import (
    grid_points,
    most_uncertain,
    points_in_image,
    sample_bitmaps,
    sample_grid,
    sample_maps,
    uncertain_points,
    whole_masks,
)


class CoarseHead(nn.Module):
    """Convolutions and fully connected layers that give a small mask for each class (Detectron2's ConvFCHead).

    Args:
        in_channels, resolution: of the features.
        conv_dim: width of the convolutions; a first one reduces channels where there are more.
        fc_dims: widths of the layers.
        num_classes: K.
        side: of the masks.
    """

    def __init__(
        self, *, in_channels: int, resolution: int, conv_dim: int, fc_dims: Sequence[int], num_classes: int, side: int
    ) -> None:
        super().__init__()
        self.num_classes, self.side = num_classes, side
        if in_channels > conv_dim:
            self.reduce_channel_dim_conv = Conv2d(in_channels, conv_dim, 1)
        self.reduce_spatial_dim_conv = Conv2d(min(in_channels, conv_dim), conv_dim, 2, stride=2)
        features = conv_dim * (resolution // 2) ** 2
        self._layers = []
        for number, dim in enumerate(fc_dims, start=1):
            layer = nn.Linear(features, dim)
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
            self.add_module(f"fc{number}", layer)
            self._layers.append(f"fc{number}")
            features = dim
        self.prediction = nn.Linear(features, num_classes * side * side)
        for conv in self.children():
            if isinstance(conv, Conv2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(conv.bias)
        nn.init.normal_(self.prediction.weight, std=0.001)
        nn.init.zeros_(self.prediction.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(R, C, resolution, resolution) to logits (R, K, side, side)."""
        if hasattr(self, "reduce_channel_dim_conv"):
            x = F.relu(self.reduce_channel_dim_conv(x))
        x = F.relu(self.reduce_spatial_dim_conv(x)).flatten(1)
        for name in self._layers:
            x = F.relu(getattr(self, name)(x))
        return self.prediction(x).view(-1, self.num_classes, self.side, self.side)


class PointHead(nn.Module):
    """The same layers for every point (Detectron2's StandardPointHead).

    Args:
        in_channels: of the maps together.
        num_classes: K; the coarse mask adds as many channels.
        fc_dims: widths of the layers.
        class_agnostic: one mask for all classes.
        coarse_each_layer: every layer reads the coarse mask, not the first alone.
    """

    def __init__(
        self, *, in_channels: int, num_classes: int, fc_dims: Sequence[int], class_agnostic: bool = False,
        coarse_each_layer: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.coarse_each_layer = coarse_each_layer
        self._layers = []
        channels = in_channels + num_classes
        for number, dim in enumerate(fc_dims, start=1):
            layer = nn.Conv1d(channels, dim, 1)
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            self.add_module(f"fc{number}", layer)
            self._layers.append(f"fc{number}")
            channels = dim + (num_classes if coarse_each_layer else 0)
        self.predictor = nn.Conv1d(channels, 1 if class_agnostic else num_classes, 1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Features (R, C, P) and coarse logits (R, K, P) to logits (R, K or 1, P)."""
        coarse = coarse.to(fine.dtype)
        x = torch.cat([fine, coarse], 1)
        for name in self._layers:
            x = F.relu(getattr(self, name)(x))
            if self.coarse_each_layer:
                x = torch.cat([x, coarse.to(x.dtype)], 1)
        return self.predictor(x)


class PointRendMaskHead(nn.Module):
    """A mask head that reads the maps itself; `StandardROIHeads` has no pooler for it.

    Args:
        coarse_head: see `CoarseHead`.
        point_head: see `PointHead`; None: the coarse masks are the result.
        coarse_maps, point_maps: which of the RoI heads' maps each reads, by number.
        strides: of the RoI heads' maps, px.
        resolution: cells a side that the coarse head reads.
        train_points, oversample, importance: see `point_sampling.uncertain_points`.
        subdivisions: how often the mask's resolution is doubled in inference, from `coarse_head.side` on.
        subdivision_points: how many points are looked at anew each time.
        border: see `point_sampling.sample_grid`.
    """

    def __init__(
        self,
        *,
        coarse_head: CoarseHead,
        point_head: PointHead | None,
        coarse_maps: Sequence[int],
        point_maps: Sequence[int],
        strides: Sequence[int],
        resolution: int,
        train_points: int = 196,
        oversample: float = 3,
        importance: float = 0.75,
        subdivisions: int = 5,
        subdivision_points: int = 784,
        border: bool = False,
    ) -> None:
        super().__init__()
        self.coarse_head, self.point_head = coarse_head, point_head
        self.coarse_maps, self.point_maps, self.strides = tuple(coarse_maps), tuple(point_maps), tuple(strides)
        self.resolution = resolution
        self.train_points, self.oversample, self.importance = train_points, oversample, importance
        self.first_side, self.subdivisions, self.subdivision_points = coarse_head.side, subdivisions, subdivision_points
        # As long as all cells would be looked at anew, the mask begins with twice as many.
        while 4 * self.first_side**2 <= subdivision_points:
            self.first_side, self.subdivisions = 2 * self.first_side, self.subdivisions - 1
        self.border = border

    def costs(self, channels: int, detections: int) -> list[MeasuredPart]:
        """Both heads on so many detections, of maps of so many channels, to be measured."""
        side = self.resolution
        cells = [(detections, channels * len(self.coarse_maps), side, side)]
        name = f"roi_heads.mask_head.coarse_head ({detections} detections)"
        parts = [MeasuredPart(name, self.coarse_head, cells, lambda x: self.coarse_head(*x))]
        if self.point_head is not None:
            points = self.first_side**2 + self.subdivisions * self.subdivision_points
            read = [(detections, channels * len(self.point_maps), points),
                    (detections, self.coarse_head.num_classes, points)]  # fmt: skip
            name = f"roi_heads.mask_head.point_head ({points} points of {detections} detections)"
            parts.append(MeasuredPart(name, self.point_head, read, lambda x: self.point_head(*x)))
        return parts

    def _sample(self, maps: Sequence[torch.Tensor], which: Sequence[int], boxes: Sequence[torch.Tensor],
                points: torch.Tensor) -> torch.Tensor:  # fmt: skip
        found = sample_maps(
            [maps[i] for i in which], [self.strides[i] for i in which], boxes, points, border=self.border
        )
        return found.to(self.coarse_head.prediction.weight.dtype)

    def _coarse(self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], count: int) -> torch.Tensor:
        """(R, K, side, side) logits of `count` boxes, R, in float32 at least."""
        side = self.resolution
        features = self._sample(maps, self.coarse_maps, boxes, grid_points(count, side, maps[0]))
        logits = self.coarse_head(features.unflatten(2, (side, side)))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _points(self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], coarse: torch.Tensor,
                classes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:  # fmt: skip
        """(R, P) logits of the boxes' classes, in float32 at least."""
        fine = self._sample(maps, self.point_maps, boxes, points)
        logits = _of_class(self.point_head(fine, sample_grid(coarse, points)), classes)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def losses(
        self,
        maps: Sequence[torch.Tensor],
        boxes: Sequence[torch.Tensor],
        classes: torch.Tensor,
        truth: Sequence[tuple[Mapping[str, Any], torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Binary cross-entropy of the coarse masks' cells, and of points.

        Args:
            maps: all maps of the RoI heads.
            boxes: (n, 4) positive ones of each image, R in all.
            classes: (R,).
            truth: of each image the ground truth, with `gt_masks` and `image_size`, and which instance each box shows.
        """
        coarse = self._coarse(maps, boxes, len(classes))
        side, chosen = self.coarse_head.side, _of_class(coarse, classes)
        whole = [whole_masks(t["gt_masks"], len(t["gt_classes"]), *t["image_size"]) for t, _ in truth]
        targets = [crop_masks(masks, of, shown, side) for masks, (_, of), shown in zip(whole, truth, boxes)]
        targets = torch.cat(targets).to(coarse.dtype)
        losses = {"loss_mask": _cross_entropy(chosen, targets)}
        if self.point_head is None:
            return losses
        with torch.no_grad():
            points = uncertain_points(
                chosen.detach(), self.train_points, oversample=self.oversample, importance=self.importance
            )
            places = points_in_image(points, torch.cat(list(boxes))).split([len(b) for b in boxes])
            labels = [
                sample_bitmaps(masks["bitmaps"].to(at.device), of.to(at.device), at)
                for masks, (_, of), at in zip(whole, truth, places)
                if len(at)
            ]
        logits = self._points(maps, boxes, coarse, classes, points)
        labels = torch.cat(labels) if labels else logits.detach()
        return {**losses, "loss_mask_point": _cross_entropy(logits, labels)}

    def probabilities(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], classes: torch.Tensor
    ) -> torch.Tensor:
        """(R, M, M) masks of boxes of these classes (R,), refined where they are uncertain (the paper's figure 3).

        Of each box only its class's logits are carried along: the others have no part in the result.
        """
        count = classes.shape[0]
        coarse = self._coarse(maps, boxes, count)
        if self.point_head is None:
            return _of_class(coarse, classes).sigmoid()
        side = self.first_side
        logits = self._points(maps, boxes, coarse, classes, grid_points(count, side, maps[0]))
        for _ in range(self.subdivisions if is_traced() or count else 0):
            logits = logits.view(-1, 1, side, side)
            logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False).flatten(1)
            side *= 2
            at = most_uncertain(logits, self.subdivision_points)
            points = torch.stack([at % side, torch.div(at, side, rounding_mode="floor")], 2).to(maps[0].dtype)
            points = points * (1.0 / side) + 0.5 / side
            logits = logits.scatter(1, at, self._points(maps, boxes, coarse, classes, points))
        return logits.view(-1, side, side).sigmoid()


def _of_class(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """(R, K or 1, ...) to (R, ...): those of each box's class (R,)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    index = classes.view(-1, 1, *[1] * (logits.ndim - 2)).expand(-1, 1, *logits.shape[2:])
    return logits.gather(1, index)[:, 0]


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean; without boxes a zero that keeps the graph."""
    return F.binary_cross_entropy_with_logits(logits, targets) if len(logits) else logits.sum() * 0.0
