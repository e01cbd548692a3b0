"""What exporting a meta-architecture takes: its steps with tensors in place of Python's numbers."""

from __future__ import annotations

from typing import Protocol

import torch

from ...layers.valid_area import ValidArea
from ...registry import Registry
from ..found import Found

# By MODEL.META_ARCHITECTURE: build(model) -> `GraphDetector` of that model's parts. It raises ExportError, with the
# reason, where the model cannot be exported.
EXPORTERS = Registry("exported meta-architecture")


class GraphDetector(Protocol):
    """A module whose every shape follows from those of its inputs.

    Attributes:
        extras: the names of what `Found.extras` will have.
        max_detections: D; 0: it finds classes of pixels alone.
        labels_pixels: whether `Found.pixels` will be there.
    """

    extras: tuple[str, ...]
    max_detections: int
    labels_pixels: bool

    def __call__(self, x: torch.Tensor, area: ValidArea | None, sizes: torch.Tensor) -> Found:
        """Detect.

        Args:
            x: (N, 3, H, W) normalised, 0 beyond each image; H and W divide by the backbone's stride.
            area: of each image, as MODEL.GATE.PADDING wants it.
            sizes: int64 (N, 2) height and width of each image on `x`.
        """
        ...
