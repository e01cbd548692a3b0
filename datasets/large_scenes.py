"""Draw the scenes of the large shapes data set: thousands of px a side, with many small shapes, as seen from the air.

The ground is a patchwork of calm textures, and each shape has colours of its own, so that what is hard is how small
shapes are in their image, not to see them up close. Random numbers are used as in shape_scenes.py, for the same bytes
on any machine.
"""

from __future__ import annotations

import numpy as np
from shape_scenes import CLASSES, Scene, Thing, _between, _palette, _texture, shape_mask

SIDES = (16, 60)  # px of a shape's box
PER_MEGAPIXEL = (8, 20)  # shapes, drawn for each image
PATCH = (200, 500)  # px of a side of the ground's fields
GAP = 3  # px at least between two shapes
BAND = 512  # rows that are finished at once


class LargeScene(Scene):
    """A square image that is painted from back to front; shapes do not overlap.

    Attributes:
        places: (left, top, mask) of each thing; the mask is bool, cut to its box.
    """

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng, self.width, self.height = rng, side, side
        self.image = np.zeros((side, side, 3), np.int16)
        self.owner = np.zeros((side, side), np.int32)
        self.stuff = np.zeros((side, side), np.int64)
        self.things: list[Thing] = []
        self.places: list[tuple[int, int, np.ndarray]] = []
        self._paint_ground()
        count = round(_between(rng, *PER_MEGAPIXEL) * side * side / 1e6)
        for _ in range(count):
            self._add_instance()

    def hidden(self) -> list[float]:
        """Nothing hides anything."""
        return [0.0] * len(self.things)

    def pixels(self) -> np.ndarray:
        """The finished image, as in `Scene`, some rows at a time."""
        whole = np.pad(self.image, ((1, 1), (0, 0), (0, 0)), mode="edge")
        bands = []
        for top in range(0, self.height, BAND):
            rows = min(BAND, self.height - top)
            image = np.pad(whole[top : top + rows + 2], ((0, 0), (1, 1), (0, 0)), mode="edge")
            image = image[:-2] + 2 * image[1:-1] + image[2:]
            image = (image[:, :-2] + 2 * image[:, 1:-1] + image[:, 2:] + 8) >> 4
            noise = self.rng.integers(-7, 8, image.shape, dtype=np.int16)
            bands.append(np.clip(image + noise, 0, 255).astype(np.uint8))
        return np.concatenate(bands)

    def _paint_ground(self) -> None:
        rng, top = self.rng, 0
        base = _palette(rng)
        while top < self.height:
            height, left = int(rng.integers(*PATCH)), 0
            while left < self.width:
                width = int(rng.integers(*PATCH))
                texture, kind = _texture(rng, height // 2 + 1, width // 2 + 1, base)
                # Calm: coarse, and with a quarter of the contrast that shapes have.
                mean = texture[0, 0]
                texture = (mean + (texture - mean) // 4).repeat(2, axis=0).repeat(2, axis=1)
                part = self.image[top : top + height, left : left + width]
                part[:] = texture[: part.shape[0], : part.shape[1]]
                self.stuff[top : top + height, left : left + width] = kind
                left += width
            top += height

    def _add_instance(self) -> None:
        rng = self.rng
        category = int(rng.integers(len(CLASSES)))
        mask = self._draw_mask(category)
        height, width = mask.shape
        for _ in range(20):
            y = int(rng.integers(2, self.height - height - 1))
            x = int(rng.integers(2, self.width - width - 1))
            around = self.owner[max(y - GAP, 0) : y + height + GAP, max(x - GAP, 0) : x + width + GAP]
            if not around.any():
                self.palette = _palette(rng)
                self.things.append(Thing(category, int(mask.sum())))
                self.places.append((x, y, mask))
                self._paint(mask, y, x, len(self.things))
                return

    def _draw_mask(self, category: int) -> np.ndarray:
        rng = self.rng
        low, high = SIDES
        while True:
            size = round(low * (high / low) ** rng.random())
            aspect, shear = _between(rng, 0.7, 1.0), _between(rng, -0.12, 0.12)
            mask = shape_mask(CLASSES[category], size, _between(rng, 0, 6.283), aspect, shear)
            if low <= min(mask.shape) and max(mask.shape) <= high:
                return mask
