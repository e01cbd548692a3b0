"""From an index to a sample: the image is read, resized and flipped, and its annotations with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from ..errors import DataError
from .coco_dataset import CocoDataset, ImageInfo
from .images import read_image
from .rle import bitmap
from .samplers import Item
from .transforms import EMPTY, Geometry, ResizeAndFlip, short_side_size, to_tensor


class TrainDataset:
    """Samples with ground truth from one or several data sets; map-style, the key is (number, index).

    The random numbers of a sample come from (seed, its number in the run), and so do not depend on who loads it.
    """

    def __init__(
        self, datasets: list[CocoDataset], *, augmentation: ResizeAndFlip, seed: int, format: str, masks: bool
    ) -> None:  # fmt: skip
        self.datasets = datasets
        self.augmentation, self.seed, self.format, self.masks = augmentation, seed, format, masks
        self._ends = np.cumsum([len(dataset) for dataset in datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, item: Item) -> dict[str, Any]:
        """A sample, ground truth as NumPy arrays (see `workers`).

        Raises:
            DataError: the image cannot be read or is not of the size that the JSON gives.
        """
        number, index = item
        which = int(np.searchsorted(self._ends, index, side="right"))
        dataset = self.datasets[which]
        index -= int(self._ends[which]) - len(dataset)
        info = dataset.image(index)
        pixels = _read(dataset, info, self.format)
        random = np.random.default_rng((self.seed, number))
        geometry = self.augmentation.draw(info.height, info.width, random)
        return {
            **_image_record(info),
            "image": to_tensor(geometry.image(pixels), shared=get_worker_info() is not None),
            "instances": _instances(dataset, index, info, geometry, self.masks),
        }


class TestDataset:
    """Samples without ground truth, resized by their short side; map-style, the key is an index."""

    __test__ = False  # not a test, whatever its name makes pytest think

    def __init__(self, dataset: CocoDataset, *, short_side: int, max_size: int, format: str, method: str) -> None:
        self.dataset = dataset
        self.short_side, self.max_size, self.format, self.method = short_side, max_size, format, method

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A sample.

        Raises:
            DataError: the image cannot be read or is not of the size that the JSON gives.
        """
        info = self.dataset.image(index)
        pixels = _read(self.dataset, info, self.format)
        size = short_side_size(info.height, info.width, self.short_side, self.max_size)
        geometry = Geometry((info.height, info.width), size, method=self.method)
        return {**_image_record(info), "image": to_tensor(geometry.image(pixels), shared=get_worker_info() is not None)}


def _image_record(info: ImageInfo) -> dict[str, Any]:
    return {"height": info.height, "width": info.width, "image_id": info.id, "file_name": str(info.path)}


def _read(dataset: CocoDataset, info: ImageInfo, format: str) -> np.ndarray:
    pixels = read_image(info.path, format)
    height, width = pixels.shape[:2]
    if (height, width) != (info.height, info.width):
        turned = (
            " The two are exchanged: the file has an EXIF orientation, which the JSON must take into account."
            if (width, height) == (info.height, info.width)
            else " (The file's size is meant after its EXIF rotation.)"
        )
        raise DataError(
            f"The image {info.path} is {width} x {height} (width x height), but {dataset.json_path} says "
            f"{info.width} x {info.height} for image {info.id!r}.{turned} Correct the JSON, or replace the file."
        )
    return pixels


def _instances(
    dataset: CocoDataset, index: int, info: ImageInfo, geometry: Geometry, with_masks: bool
) -> dict[str, Any]:
    found = dataset.annotations(index, crowds=False, masks=with_masks)
    boxes = geometry.boxes(found.boxes)
    keep = ((boxes[:, 2:] - boxes[:, :2]) > EMPTY).all(axis=1)
    if with_masks:
        bitmaps = np.zeros((len(found.runs), *geometry.new), np.uint8)
        for mask, runs in zip(bitmaps, found.runs):
            mask[:] = geometry.bitmap(bitmap(runs, info.height, info.width))
        # As in Detectron2 an instance whose mask has vanished, here by resizing, is none; one that never had a mask is.
        drawn = np.ones(len(keep), bool)
        drawn[found.runs_owner] = False
        drawn[found.polygon_owner] = True
        drawn[found.runs_owner[bitmaps.any(axis=(1, 2))]] = True
        keep &= drawn
    instances: dict[str, Any] = {"gt_boxes": boxes[keep], "gt_classes": found.classes[keep]}
    if with_masks:
        renumbered = np.cumsum(keep) - 1
        polygons = keep[found.polygon_owner]
        vertices = np.repeat(polygons, found.polygon_points)
        rle = keep[found.runs_owner]
        instances["gt_masks"] = {
            "polygons": geometry.points(found.polygons[vertices]),
            "polygon_points": found.polygon_points[polygons],
            "polygon_owner": renumbered[found.polygon_owner[polygons]],
            "bitmaps": bitmaps[rle],
            "bitmap_owner": renumbered[found.runs_owner[rle]],
        }
    return instances
