"""What can be exported: networks that take one tensor and return a fixed number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..detection.rcnn import GeneralizedRCNN


def largest_difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """Of any two values at one place, as a share of their tensor's largest value, or of 1 where all are smaller."""
    shares = [0.0]
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if one.numel():
            shares.append(float((one - other).abs().max()) / max(float(one.abs().max()), 1.0))
    return max(shares)


@dataclass(frozen=True)
class Exportable:
    """A network and what its file says of it.

    Attributes:
        module: (N, 3, H, W) float32 to a tensor, or to a tuple of them.
        outputs: their names.
        shapes: of inputs that the file is checked with; it is traced with the first.
        dynamic: batch, height and width are free; otherwise the file takes the one shape alone.
        says: plain values that are stored in the file.
        difference: how far one tuple of outputs is from another.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, int, int, int], ...]
    dynamic: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)
    difference: Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], float] = largest_difference


# No map of a network on these has a side of one cell, for which torch.export makes a program of its own.
SHAPES = ((2, 3, 96, 128), (1, 3, 70, 90), (3, 3, 101, 77), (1, 3, 224, 224))


def classifier(model: nn.Module, *, metadata: Mapping[str, Any] | None = None) -> Exportable:
    """A classifier: normalised images (N, 3, H, W) to `logits` (N, classes)."""
    return Exportable(prepare_for_export(model), ("logits",), SHAPES, metadata=metadata or {})


def pyramid(model: GeneralizedRCNN) -> Exportable:
    """The backbone and the pyramid of a detector: normalised images (N, 3, H, W) to its maps, "p2" to "p6".

    Each image fills its batch: nothing is told of padding, and MODEL.GATE.PADDING has no effect.
    """
    return Exportable(
        prepare_for_export(_Pyramid(model)), tuple(model.backbone.strides), SHAPES, metadata=normalisation(model)
    )


def normalisation(model: GeneralizedRCNN) -> dict[str, Any]:
    """What a detector subtracts and divides by, in the order of its channels."""
    mean, std = (value.flatten().tolist() for value in (model.pixel_mean, model.pixel_std))
    return {"pixel_mean": mean, "pixel_std": std}


class _Pyramid(nn.Module):
    def __init__(self, model: GeneralizedRCNN) -> None:
        super().__init__()
        self.backbone = model.backbone

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.backbone.features(images)[0].values())


def prepare_for_export(module: nn.Module) -> nn.Module:
    """Ready to be traced: on the CPU, in float32, in evaluation mode, without gradients."""
    return module.cpu().float().eval().requires_grad_(False)


def random_images(shape: Sequence[int]) -> torch.Tensor:
    """The same values for a shape every time."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))
