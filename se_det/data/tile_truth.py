"""Training on windows: which windows of a data set there are to learn from, and what each shows of the annotations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fvcore.common.config import CfgNode

from .augmentations import Masks, Sample
from .augmentations.crop import Crop
from .coco_dataset import CocoDataset, ImageAnnotations
from .epochs import Epoch, UniformEpoch
from .rle import window_bitmap
from .tiles import Tiling, shown_boxes, tiling

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainTiles:
    """How training cuts images into windows (INPUT.TILE).

    Attributes:
        plan: the windows of an image.
        min_visible: the share of its box that a window must show of an object for it to be learned there.
        empty: the share of an epoch's windows that show nothing annotated.
    """

    plan: Tiling
    min_visible: float
    empty: float


def train_tiles(cfg: CfgNode) -> TrainTiles | None:
    """What INPUT.TILE says; None where whole images are trained on."""
    tile, plan = cfg.INPUT.TILE, tiling(cfg.INPUT.TILE)
    return None if plan is None else TrainTiles(plan, tile.MIN_VISIBLE, tile.EMPTY)


@dataclass(frozen=True)
class TrainWindows:
    """The windows that are trained on: those with objects first, then those that show nothing annotated.

    Windows that show no object as far as it takes, but a part of one or a crowd, are neither: they would teach that
    this is background.

    Attributes:
        image: int64 (n,), through the images of all data sets one after another.
        corners: int64 (n, 4) XYXY px of the image.
        full: how many have objects.
        class_windows, classes: int64 (p,), every pair of a window and a class that it has an object of.
        min_visible: see `TrainTiles`.
    """

    image: np.ndarray
    corners: np.ndarray
    full: int
    class_windows: np.ndarray
    classes: np.ndarray
    min_visible: float

    def __len__(self) -> int:
        return len(self.image)

    @property
    def sizes(self) -> np.ndarray:
        """int64 (n, 2): height and width px of each window."""
        return (self.corners[:, 2:] - self.corners[:, :2])[:, ::-1]


def find_windows(datasets: Sequence[CocoDataset], tiles: TrainTiles) -> TrainWindows:
    """All windows of data sets; no image is opened."""
    image, corners, empty, kind_of, kinds = [], [], [], [], []
    first = count = 0
    for dataset in datasets:
        for i, size in enumerate(dataset.sizes.tolist()):
            found = dataset.annotations(i, masks=False)
            windows = tiles.plan.windows(*size)
            window, box, share = shown_boxes(found.boxes, windows, tuple(size))
            learned = (share >= tiles.min_visible) & ~found.crowd[box]
            full = np.bincount(window[learned], minlength=len(windows)) > 0
            bare = np.bincount(window, minlength=len(windows)) == 0
            used = np.flatnonzero(full | bare)
            number = np.full(len(windows), -1)
            number[used] = count + np.arange(len(used))
            image.append(np.full(len(used), first + i))
            corners.append(windows[used])
            empty.append(bare[used])
            kind_of.append(number[window[learned]])
            kinds.append(found.classes[box[learned]])
            count += len(used)
        first += len(dataset)
    is_empty = np.concatenate(empty) if empty else np.zeros(0, bool)
    order = np.argsort(is_empty, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    pairs = np.unique(np.stack([place[np.concatenate(kind_of)], np.concatenate(kinds)]), axis=1)
    result = TrainWindows(
        image=np.concatenate(image)[order],
        corners=np.concatenate(corners)[order],
        full=int((~is_empty).sum()),
        class_windows=pairs[0],
        classes=pairs[1],
        min_visible=tiles.min_visible,
    )
    logger.info(
        "Windows of %d px of %d images (INPUT.TILE): %d show objects, %d nothing annotated.",
        tiles.plan.size, first, result.full, len(result) - result.full,
    )  # fmt: skip
    return result


class WindowEpoch:
    """The windows with objects as another epoch has them, and among them a share of those without, drawn anew.

    Args:
        windows: of all data sets.
        empty: the share of the epoch that shows nothing annotated, below 1; less where there are not as many.
        full: an epoch of the windows with objects; None has each once.
    """

    def __init__(self, windows: TrainWindows, *, empty: float, full: Epoch | None = None) -> None:
        self._first, self._count = windows.full, len(windows) - windows.full
        self._ratio = empty / (1 - empty)
        self._full = full or UniformEpoch(windows.full)

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        """See `Epoch`."""
        full = self._full(random)
        # Without any object all that there is to see is background.
        wanted = round(len(full) * self._ratio) if self._first else self._count
        empty = self._first + random.permutation(self._count)[:wanted]
        return random.permutation(np.concatenate([full, empty]))


def window_sample(
    found: ImageAnnotations, pixels: np.ndarray, window: np.ndarray, size: tuple[int, int], *, min_visible: float,
    masks: bool,
) -> Sample:  # fmt: skip
    """What a window shows of an image's annotations, crowds left out: objects of which it shows enough, cut to it.

    Args:
        found: the annotations, in px of the image.
        pixels: uint8 (h, w, 3), of the window.
        window: XYXY px.
        size: (height, width) px of the image.
        min_visible: see `TrainTiles`.
        masks: whether the sample has masks.
    """
    _, box, share = shown_boxes(found.boxes, window[None], size)
    kept = np.zeros(len(found.boxes), bool)
    kept[box[share >= min_visible]] = True
    kept &= ~found.crowd
    left, top, right, bottom = map(int, window)
    corner = np.array([left, top], np.float64)
    sample = Sample(
        image=pixels,
        boxes=found.boxes[kept].astype(np.float64) - np.tile(corner, 2),
        classes=found.classes[kept],
        masks=_masks(found, kept, (left, top, right, bottom), size[0], corner) if masks else None,
    )
    inside = bottom - top, right - left
    return sample.transformed(Crop(inside, 0, 0, inside))


def _masks(
    found: ImageAnnotations, kept: np.ndarray, window: tuple[int, int, int, int], height: int, corner: np.ndarray
) -> Masks:
    """The masks of the annotations `kept`, from the window's corner on; run lengths are decoded in the window alone."""
    everything = Masks(
        polygons=found.polygons,
        polygon_points=found.polygon_points,
        polygon_owner=found.polygon_owner,
        bitmaps=[window_bitmap(run, height, window) if kept[owner] else np.zeros((0, 0), np.uint8)
                 for run, owner in zip(found.runs, found.runs_owner)],
        bitmap_owner=found.runs_owner,
    )  # fmt: skip
    masks = everything.select(kept)
    return Masks(
        polygons=masks.polygons - corner,
        polygon_points=masks.polygon_points,
        polygon_owner=masks.polygon_owner,
        bitmaps=masks.bitmaps,
        bitmap_owner=masks.bitmap_owner,
    )
