"""Images that are read, moved and cropped when their pixels are asked for, and no more of them than are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..transforms import split_channels


class LazyImage:
    """An image uint8 (H, W, 3) that is made when it is needed, once.

    Args:
        size: (height, width) px.
        make: gives it; maybe a view, and not to be written to.
    """

    def __init__(self, size: tuple[int, int], make: Callable[[], np.ndarray]) -> None:
        self.size = size
        self._make, self._pixels = make, None

    @property
    def made(self) -> bool:
        """Whether all of it is there."""
        return self._pixels is not None

    def whole(self) -> np.ndarray:
        """All of it.

        Raises:
            DataError: its file cannot be read.
        """
        if self._pixels is None:
            self._pixels = self._make()
        return self._pixels

    def part(self, rows: slice, columns: slice) -> np.ndarray:
        """The window of `whole` from `start` to `stop` of both, which lie in it."""
        return self.whole()[rows, columns]

    def planes(self, out: Sequence[np.ndarray]) -> None:
        """Write the three channels into arrays (H, W)."""
        split_channels(self.whole(), out)


def stored(pixels: np.ndarray) -> LazyImage:
    """An image that is there."""
    return LazyImage(pixels.shape[:2], lambda: pixels)


class MovedImage(LazyImage):
    """What a transform (`protocol.Transform`) makes of another image.

    Some transforms can make a part alone, or write what they make into its place. They have methods `part` and `planes`
    like this class, with the image before as another argument in front.
    """

    def __init__(self, before: LazyImage, transform: Any) -> None:
        super().__init__(transform.size, lambda: transform.image(before.whole()))
        self._before, self._transform = before, transform

    def part(self, rows: slice, columns: slice) -> np.ndarray:
        size = rows.stop - rows.start, columns.stop - columns.start
        if 0 in size:
            return np.zeros((*size, 3), np.uint8)
        if self.made or not hasattr(self._transform, "part"):
            return super().part(rows, columns)
        return self._transform.part(self._before, rows, columns)

    def planes(self, out: Sequence[np.ndarray]) -> None:
        if self.made or not hasattr(self._transform, "planes"):
            super().planes(out)
        else:
            self._transform.planes(self._before, out)


class ImageField:
    """A field of a dataclass that is given an array or a `LazyImage`, and gives the array."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> np.ndarray:
        if instance is None:  # a dataclass asks for the field's default: it has none
            raise AttributeError(self._name)
        return instance.__dict__[self._name].whole()

    def __set__(self, instance: Any, value: np.ndarray | LazyImage) -> None:
        instance.__dict__[self._name] = value if isinstance(value, LazyImage) else stored(value)
