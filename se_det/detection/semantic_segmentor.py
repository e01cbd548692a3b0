"""Semantic segmentation: a class for every pixel (Detectron2's SemanticSegmentor)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..backbones.trunk import image_area
from .rcnn import Detector
from .sem_seg_head import SemSegFPNHead, resize_logits


class SemanticSegmentor(Detector):
    """A backbone and a head of logits.

    Args:
        backbone: an `FPN`.
        sem_seg_head: see `SemSegFPNHead`.
        pixel_mean, pixel_std: see `Detector`.
    """

    def __init__(
        self, *, backbone: nn.Module, sem_seg_head: SemSegFPNHead, pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.sem_seg_head = sem_seg_head

    def inference_parts(self) -> list[nn.Module]:
        """All but the layer of scores."""
        return [self.backbone, *self.sem_seg_head.inference_parts()]

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """The loss in training mode, logits otherwise.

        Args:
            samples: dicts with `image` (3, H, W) uint8 or float, not normalised; in training `sem_seg` (H, W), the
                classes of the pixels; otherwise optionally `height` and `width`, in which results are wanted.

        Returns:
            training: `loss_sem_seg`. Otherwise a dict for each image: {"sem_seg": logits (K, height, width)}.
        """
        x, sizes = self.batch([s["image"] for s in samples])
        maps, areas = self.backbone.features(x, image_area(self.backbone.padding, sizes))
        logits = self.sem_seg_head(maps, areas)
        if self.training:
            return self.sem_seg_head.loss(logits, [s["sem_seg"] for s in samples])
        return [
            {"sem_seg": resize_logits(one, size, s.get("height", size[0]), s.get("width", size[1]))}
            for one, size, s in zip(logits, sizes, samples)
        ]

    def detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What `forward` gives in evaluation mode."""
        return self(samples)
