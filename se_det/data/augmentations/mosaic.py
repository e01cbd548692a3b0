"""Four images as the quarters of one (YOLOv4, Bochkovskiy et al. 2020, arXiv:2004.10934)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from ..transforms import RESIZE_METHODS
from . import arguments
from .arguments import number, one_of, span
from .combining import Placed, joined
from .crop import PAD_VALUE, Crop
from .protocol import AUGMENTATIONS, Sample
from .random_apply import RandomApply
from .resize import Resize
from .resize_scale import fitting_size

CENTRE = (0.25, 0.75)  # where the four meet, as shares of height and width


@AUGMENTATIONS.register()
class Mosaic(RandomApply):
    """The image and three others, each resized and with one corner in a point near the middle where the four meet.

    Args:
        size: height and width px of the result; one number is both.
        scale: of each image, the lowest and the highest; 1 is as large as fits into the result.
        pad_value: grey level of what no image covers.
        method: of `transforms.resize_image`. Default: INPUT.RESIZE.
        probability: of all of it.

    Raises:
        ConfigError: a value that is unknown or cannot work.
    """

    partners = 3

    def __init__(
        self, *, size: int | Sequence[int] = 1024, scale: Sequence[float] = (0.4, 1.0), pad_value: float = PAD_VALUE,
        method: str = "pil", probability: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(probability=probability)
        self.size, self.scale = arguments.size(self, "size", size), span(self, "scale", scale, 0.01, 100)
        self.pad_value = number(self, "pad_value", pad_value, 0, 255)
        self.method = one_of(self, "method (INPUT.RESIZE)", method, RESIZE_METHODS)

    @staticmethod
    def defaults(cfg: CfgNode) -> dict[str, Any]:
        """What an entry of INPUT.AUGMENTATIONS does not give."""
        return {"method": cfg.INPUT.RESIZE}

    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        height, width = self.size
        y, x = (min(max(round(side * random.uniform(*CENTRE)), 1), side - 1) if side > 1 else 0 for side in self.size)
        canvas = np.full((height, width, 3), self.pad_value, np.uint8)
        parts, corners = [], []
        for number_of, part in enumerate([sample, *partners]):
            below, right = divmod(number_of, 2)
            new = fitting_size(part.size, self.size, random.uniform(*self.scale))
            part = part.transformed(Resize(part.size, new, self.method))
            # What of it is in its quarter, seen from the point where the four meet.
            rows = min(new[0], height - y if below else y)
            columns = min(new[1], width - x if right else x)
            if rows == 0 or columns == 0:
                continue
            crop = Crop(new, 0 if below else new[0] - rows, 0 if right else new[1] - columns, (rows, columns))
            part = part.transformed(crop)
            top, left = y if below else y - rows, x if right else x - columns
            canvas[top : top + rows, left : left + columns] = part.image
            parts.append(part)
            corners.append((top, left))
        return joined([part.transformed(Placed(canvas, *corner)) for part, corner in zip(parts, corners)])
