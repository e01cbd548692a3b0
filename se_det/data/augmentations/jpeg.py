"""Traces of compression (torchvision's JPEG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from fvcore.common.config import CfgNode

from ..images import FORMATS
from .arguments import one_of, span
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


@AUGMENTATIONS.register()
class JPEG(RandomApply):
    """The image as a JPEG of a drawn quality has it.

    Args:
        quality: 1 to 100, the lowest and the highest.
        probability: of the compression.
        format: BGR or RGB, the order of the channels. Default: INPUT.FORMAT.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(self, *, quality: Sequence[int] = (30, 90), probability: float = 0.5, format: str = "BGR") -> None:
        super().__init__(probability=probability)
        self.quality = tuple(int(bound) for bound in span(self, "quality", quality, 1, 100))
        self.format = one_of(self, "format", format, FORMATS)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"format": cfg.INPUT.FORMAT}

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        quality = int(random.integers(*self.quality, endpoint=True))
        order = 1 if self.format == "BGR" else -1  # OpenCV takes and gives BGR
        image = np.ascontiguousarray(sample.image[:, :, ::order])
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return replace(sample, image=cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::order])
