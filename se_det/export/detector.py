"""A whole detector as one graph, for any number of images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..backbones.trunk import image_area
from ..detection import boxes as box_ops
from ..detection.rcnn import Detector
from ..layers.valid_area import ValidArea
from .architectures import GraphDetector
from .resizing import resize, short_side_sizes

OUTPUTS = ("boxes", "scores", "classes", "counts")


class DetectorGraph(nn.Module):
    """Images as they were read to detections in their own px.

    Args:
        steps: the meta-architecture's, see `EXPORTERS`.
        model: whose normalisation and stride are used.
        short_side, max_size: see `short_side_size`.
        reverse_channels: the model takes BGR.
    """

    inputs: tuple[str, ...] = ("images", "sizes")

    def __init__(
        self, steps: GraphDetector, model: Detector, *, short_side: int, max_size: int, reverse_channels: bool
    ) -> None:
        super().__init__()
        self.steps = steps
        self.outputs = (*OUTPUTS, *steps.extras)
        self.stride = max(model.backbone.size_divisibility, 1)
        self.padding = model.backbone.padding
        self.short_side, self.max_size, self.reverse_channels = short_side, max_size, reverse_channels
        self.register_buffer("mean", model.pixel_mean.clone())
        self.register_buffer("std", model.pixel_std.clone())

    def forward(self, images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Detect.

        Args:
            images: uint8 (N, H, W, 3) RGB, smaller ones padded at the bottom and on the right with anything.
            sizes: int64 (N, 2) height and width of each image's own part.

        Returns:
            `boxes` float32 (N, D, 4) XYXY px of the original, `scores` (N, D) by falling score, `classes` int64 (N, D),
            `counts` int64 (N,): how many there are; after those score 0 and class -1. Then the steps' `extras`.
        """
        resized = short_side_sizes(sizes, self.short_side, self.max_size)
        cells = (resized.amax(0) + self.stride - 1) // self.stride
        height, width = (_size(side) * self.stride for side in cells.unbind())
        x = resize(images, sizes, resized, height, width)
        if self.reverse_channels:
            x = x.flip(1)
        return self._found(x, resized, sizes)

    def _found(self, x: torch.Tensor, resized: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """From pixels (N, 3, H, W) in the model's order to the outputs."""
        inside = ValidArea(resized).mask(x)
        x = torch.where(inside, (x - self.mean) / self.std, 0.0)
        area = None if self.padding == "keep" else ValidArea(resized, self.padding == "exact")
        boxes, scores, classes, extras = self.steps(x, area, resized)
        ratio = (sizes.double() / resized.double()).float().flip(1)[:, None]  # of x and y
        boxes = boxes * ratio.repeat(1, 1, 2)
        limits = sizes.to(boxes.dtype).flip(1).repeat(1, 2)[:, None]
        boxes = boxes.clamp(min=0).minimum(limits)
        # What scaling back has made empty goes, and what is left moves up.
        scores = torch.where(box_ops.nonempty(boxes), scores, -torch.inf)
        scores, order = scores.topk(scores.shape[1], 1)
        there = scores > -torch.inf
        if "keypoints" in extras:
            points = extras["keypoints"]
            extras = {**extras, "keypoints": torch.cat([points[..., :2] * ratio[:, :, None], points[..., 2:]], -1)}

        def ordered(values: torch.Tensor, nothing: float) -> torch.Tensor:
            shape = (*order.shape, *[1] * (values.ndim - 2))
            chosen = values.gather(1, order.view(shape).expand(values.shape))
            return torch.where(there.view(shape), chosen, nothing)

        return (
            ordered(boxes, 0.0),
            torch.where(there, scores, 0.0),
            ordered(classes, -1),
            there.long().sum(1),
            *(ordered(extras[name], 0.0) for name in self.steps.extras),
        )


class PreparedDetectorGraph(DetectorGraph):
    """The same for images that were resized before."""

    inputs = ("images", "sizes", "scales")

    def forward(self, images: torch.Tensor, sizes: torch.Tensor, scales: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Detect.

        Args:
            images: float32 (N, 3, H, W), values 0 to 255 in the model's order of channels, not normalised.
            sizes: int64 (N, 2) height and width of each image's own part, resized.
            scales: float32 (N, 2) what they are multiplied by to be the original's height and width.

        Returns:
            as `DetectorGraph`.
        """
        height, width = (-(-side // self.stride) * self.stride for side in images.shape[2:])
        x = nn.functional.pad(images, (0, width - images.shape[3], 0, height - images.shape[2]))
        return self._found(x, sizes, (sizes.double() * scales.double()).round().long())


def _size(side: torch.Tensor) -> int:
    """A number that only a run of the graph knows, as a size."""
    value = side.item()
    if not isinstance(value, int):
        torch._check(value >= 1)
        torch._check(value <= 2**16)
    return value
