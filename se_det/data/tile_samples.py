"""Samples of windows for detection: each window of an image is a sample, resized as an image of its size would be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from .coco_dataset import CocoDataset, ImageInfo, check_size
from .regions import OpenImages, Regions, read_whole
from .tiles import Tiling
from .transforms import resize_image, short_side_size, to_tensor


class WindowSampler:
    """From windows of an image to what a detector takes.

    Args:
        tiles: the plan.
        whole_image: whether the image as a whole is a window too, the last, where it is more than one.
        short_side, max_size, method: of each window as it is resized; see `short_side_size` and `resize_image`.
    """

    def __init__(
        self, tiles: Tiling, *, whole_image: bool, short_side: int, max_size: int, method: str = "pil"
    ) -> None:
        self.tiles, self.whole_image = tiles, whole_image
        self._short_side, self._max_size, self._method = short_side, max_size, method

    def windows(self, height: int, width: int) -> np.ndarray:
        """int64 (n, 4) XYXY px: the windows of an image."""
        windows = self.tiles.windows(height, width)
        if self.whole_image and len(windows) > 1:
            windows = np.concatenate([windows, [[0, 0, width, height]]])
        return windows

    def sample(self, image: Regions, window: Sequence[int], *, shared: bool = False) -> dict[str, Any]:
        """A window as a sample of its own: `image` (3, H, W) uint8, `height` and `width` of the window, in whose pixels
        detections are wanted, and `window`, where it lies.

        Args:
            shared: see `to_tensor`.

        Raises:
            DataError: that part of the image cannot be read.
        """
        x0, y0, x1, y1 = map(int, window)
        size = short_side_size(y1 - y0, x1 - x0, self._short_side, self._max_size)
        if (x1 - x0, y1 - y0) == (image.width, image.height):
            pixels = read_whole(image, *size, method=self._method)
        else:
            pixels = resize_image(image.read(window), *size, method=self._method)
        return {
            "image": to_tensor(pixels, shared=shared),
            "height": y1 - y0,
            "width": x1 - x0,
            "window": (x0, y0, x1, y1),
        }


class TiledTestDataset:
    """Windows of a data set's images, without ground truth; map-style, the key is (index, number of the window).

    Besides what `WindowSampler.sample` gives, a sample has `image_id`, `file_name`, `image_size` (height, width) px and
    `windows`, how many the image has.
    """

    def __init__(self, dataset: CocoDataset, sampler: WindowSampler, *, format: str) -> None:
        self.dataset, self.sampler = dataset, sampler
        self._open = OpenImages(format)

    def __len__(self) -> int:
        return len(self.dataset)

    def keys(self, index: int) -> list[tuple[int, int]]:
        """Those of an image's windows, in their order."""
        info = self.dataset.image(index)
        return [(index, number) for number in range(len(self.sampler.windows(info.height, info.width)))]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """A sample.

        Raises:
            DataError: the image cannot be read or is not of the size that the JSON gives.
        """
        index, number = key
        info = self.dataset.image(index)
        windows = self.sampler.windows(info.height, info.width)
        image = open_checked(self._open, self.dataset, info)
        return {
            **self.sampler.sample(image, windows[number], shared=get_worker_info() is not None),
            "image_id": info.id,
            "file_name": str(info.path),
            "image_size": (info.height, info.width),
            "windows": len(windows),
        }


def open_checked(opened: OpenImages, dataset: CocoDataset, info: ImageInfo) -> Regions:
    """An image of a data set.

    Raises:
        DataError: it cannot be read, or is not of the size that the JSON gives.
    """
    image = opened[info.path]
    check_size(dataset, info, image.height, image.width)
    return image


def image_record(sample: dict[str, Any]) -> dict[str, Any]:
    """The record of the whole image that a window's sample is of: `image_id`, `file_name`, `height`, `width`."""
    height, width = sample["image_size"]
    return {"image_id": sample["image_id"], "file_name": sample["file_name"], "height": height, "width": width}
