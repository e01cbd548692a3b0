"""Grey images (torchvision's RandomGrayscale)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from fvcore.common.config import CfgNode

from ..images import FORMATS
from .arguments import one_of
from .colour import grey
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply


@AUGMENTATIONS.register()
class RandomGrayscale(RandomApply):
    """All channels become the image's grey.

    Args:
        probability: of the change.
        format: BGR or RGB, the order of the channels. Default: INPUT.FORMAT.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(self, *, probability: float = 0.1, format: str = "BGR") -> None:
        super().__init__(probability=probability)
        self.format = one_of(self, "format", format, FORMATS)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"format": cfg.INPUT.FORMAT}

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        return replace(sample, image=cv2.cvtColor(grey(sample.image, self.format), cv2.COLOR_GRAY2BGR))
