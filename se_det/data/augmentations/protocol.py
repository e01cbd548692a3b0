"""What an augmentation is: it maps a sample, image and ground truth together, to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ...registry import Registry
from .lazy_image import ImageField, LazyImage, MovedImage
from .polygon_clip import Window, clip_polygons

AUGMENTATIONS = Registry("augmentation")
EMPTY = 1e-5  # px; an instance whose clipped box has a side not above this is none


class Transform(Protocol):
    """A mapping of the plane that `Sample.transformed` does to all that a sample has.

    Attributes:
        size: (height, width) px of the image afterwards.
        mirrored: whether left and right change places, so that paired keypoints must.
        window: x0, y0, x1, y1 px of the new image beyond which nothing is left; None where nothing can be lost.
    """

    size: tuple[int, int]
    mirrored: bool
    window: Window | None

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3), in any order of channels and maybe a view, to uint8 (*size, 3)."""
        ...

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A mask or labels uint8 (H, W) to one of `size`: each pixel takes the value of one before, 0 where there was
        none."""
        ...

    def points(self, xy: np.ndarray) -> np.ndarray:
        """float64 (n, 2) xy px to the same."""
        ...


def _floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float64)


def _integers() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The masks of n instances, of which each has polygons, bitmaps, both or neither.

    Attributes:
        polygons: float64 (M, 2) xy px, the vertices of all polygons.
        polygon_points: int64 (P,) vertices of each polygon.
        polygon_owner: int64 (P,) its instance, 0..n-1, not falling.
        bitmaps: b masks uint8 (H, W) of 0 and 1, as large as the image: an array, or anything that has a length and
            gives them one by one (run lengths are decoded only then, and a large image's never all at once).
        bitmap_owner: int64 (b,) its instance.
    """

    polygons: np.ndarray = field(default_factory=lambda: _floats(0, 2))
    polygon_points: np.ndarray = field(default_factory=_integers)
    polygon_owner: np.ndarray = field(default_factory=_integers)
    bitmaps: Sequence[np.ndarray] | np.ndarray = ()
    bitmap_owner: np.ndarray = field(default_factory=_integers)

    def transformed(self, transform: Transform) -> Masks:
        """The masks after `transform`."""
        bitmaps = np.zeros((len(self.bitmaps), *transform.size), np.uint8)
        for after, at in zip(bitmaps, range(len(self.bitmaps))):
            after[:] = transform.bitmap(self.bitmaps[at])
        result = replace(self, polygons=transform.points(self.polygons), bitmaps=bitmaps)
        return result if transform.window is None else result.clipped(transform.window)

    def clipped(self, window: Window) -> Masks:
        """The polygons' parts in a window; bitmaps stay as they are."""
        xy, points, source = clip_polygons(self.polygons, self.polygon_points, window)
        return replace(self, polygons=xy, polygon_points=points, polygon_owner=self.polygon_owner[source])

    def select(self, keep: np.ndarray) -> Masks:
        """The masks of the instances that `keep`, bool (n,), says; they are numbered anew."""
        renumbered = np.cumsum(keep) - 1
        polygons, bitmaps = keep[self.polygon_owner], keep[self.bitmap_owner]
        return Masks(
            polygons=self.polygons[np.repeat(polygons, self.polygon_points)],
            polygon_points=self.polygon_points[polygons],
            polygon_owner=renumbered[self.polygon_owner[polygons]],
            bitmaps=[self.bitmaps[at] for at in np.flatnonzero(bitmaps)],
            bitmap_owner=renumbered[self.bitmap_owner[bitmaps]],
        )

    def polygons_of(self, instance: int) -> tuple[np.ndarray, np.ndarray]:
        """An instance's vertices (m, 2), and their number in each of its polygons."""
        first, last = np.searchsorted(self.polygon_owner, [instance, instance + 1])
        start = int(self.polygon_points[:first].sum())
        points = self.polygon_points[first:last]
        return self.polygons[start : start + int(points.sum())], points

    def owned(self, count: int) -> np.ndarray:
        """bool (count,): which instances have a polygon or a bitmap."""
        result = np.zeros(count, bool)
        result[self.polygon_owner] = True
        result[self.bitmap_owner] = True
        return result

    def extents(self, count: int) -> np.ndarray:
        """float64 (count, 4) XYXY px: of each instance's mask, for bitmaps to the outer edge of the last pixel. The
        lower corner is above the other where there is none."""
        result = np.full((count, 4), np.inf)
        result[:, 2:] = -np.inf
        if len(self.polygon_points):
            new = np.flatnonzero(np.diff(self.polygon_owner, prepend=-1))
            first, owners = (np.cumsum(self.polygon_points) - self.polygon_points)[new], self.polygon_owner[new]
            result[owners, :2] = np.minimum.reduceat(self.polygons, first)
            result[owners, 2:] = np.maximum.reduceat(self.polygons, first)
        for owner, at in zip(self.bitmap_owner, range(len(self.bitmaps))):
            found = bitmap_extent(self.bitmaps[at])
            if found is not None:
                result[owner, :2] = np.minimum(result[owner, :2], found[:2])
                result[owner, 2:] = np.maximum(result[owner, 2:], found[2:])
        return result

    def vanished(self, count: int) -> np.ndarray:
        """bool (count,): which instances have bitmaps of which all are empty, and no polygon."""
        result = np.zeros(count, bool)
        result[self.bitmap_owner] = True
        result[self.polygon_owner] = False
        for owner, at in zip(self.bitmap_owner, range(len(self.bitmaps))):
            result[owner] &= not self.bitmaps[at].any()
        return result


def bitmap_extent(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """XYXY px of what is not 0 in a mask (H, W), to the outer edge of the last pixel; None when all is."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its ground truth, crowds left out, between two augmentations.

    Attributes:
        image: uint8 (H, W, 3), channels in the order of INPUT.FORMAT; may be a view, and is not to be written to. It is
            made when it is asked for: what needs its size alone asks for `size`.
        boxes: float64 (n, 4) XYXY px, not clipped: they are in the end, and dropped when empty.
        classes: int64 (n,).
        masks: None without a mask head.
        keypoints: float64 (n, K, 3) x, y, v; None without.
        flip_pairs: int64 (K,) the keypoint that takes each one's place in a mirror.
        cut: whether some of it may be lost or covered: in the end a box with a mask then becomes the mask's extent, as
            Detectron2's `recompute_boxes`.
        sem_seg: uint8 (H, W), the class of each pixel; None without.
        ignore: what `sem_seg` has where no class is known.
        proposals: float64 (p, 4) XYXY px, boxes that were proposed before, none of which is dropped; None without.
    """

    image: np.ndarray = ImageField()  # noqa: RUF009 (a descriptor)
    boxes: np.ndarray
    classes: np.ndarray
    masks: Masks | None = None
    keypoints: np.ndarray | None = None
    flip_pairs: np.ndarray | None = None
    cut: bool = False
    sem_seg: np.ndarray | None = None
    ignore: int = 255
    proposals: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) px."""
        return self.lazy_image.size

    @property
    def lazy_image(self) -> LazyImage:
        """The image, maybe not made yet."""
        return self.__dict__["image"]

    def replaced(self, **changes: Any) -> Sample:
        """`dataclasses.replace`, which does not make the image."""
        return replace(self, **{"image": self.lazy_image, **changes})

    def transformed(self, transform: Transform) -> Sample:
        """Everything after `transform`. A box becomes the extent of its four corners; what is beyond the window of a
        transform that has one is lost: instances, parts of polygons, and keypoints, whose v becomes 0."""
        keypoints = self.keypoints
        if keypoints is not None:
            xy = transform.points(keypoints[..., :2].reshape(-1, 2)).reshape(*keypoints.shape[:2], 2)
            keypoints = np.concatenate([xy, keypoints[..., 2:]], axis=2)
            if transform.mirrored and self.flip_pairs is not None:
                keypoints = keypoints[:, self.flip_pairs]
        result = self.replaced(
            image=MovedImage(self.lazy_image, transform),
            boxes=moved_boxes(self.boxes, transform),
            masks=self.masks and self.masks.transformed(transform),
            keypoints=keypoints,
            sem_seg=self._moved_labels(transform),
            proposals=None if self.proposals is None else moved_boxes(self.proposals, transform),
        )
        return result if transform.window is None else result._cut(transform.window, self._masked())

    def _moved_labels(self, transform: Transform) -> np.ndarray | None:
        """A mask's 0 is what a transform fills with: labels change places with it on their way."""
        if self.sem_seg is None:
            return None
        ignore = np.uint8(self.ignore)
        return transform.bitmap(self.sem_seg ^ ignore) ^ ignore

    def _cut(self, window: Window, masked: np.ndarray) -> Sample:
        """Without what is beyond the window; `masked`, bool (n,), says which instances had a mask before."""
        low, high = np.array(window[:2]), np.array(window[2:])
        boxes = np.clip(self.boxes, np.tile(low, 2), np.tile(high, 2))
        keypoints = self.keypoints
        if keypoints is not None:
            seen = ((keypoints[..., :2] >= low) & (keypoints[..., :2] <= high)).all(axis=2)
            keypoints = np.where(seen[..., None], keypoints, keypoints * [1, 1, 0])
        # An instance with a mask is where its mask is, whatever its box says.
        keep = np.where(masked, self._masked(), ((boxes[:, 2:] - boxes[:, :2]) > EMPTY).all(axis=1))
        result = self.replaced(boxes=boxes, keypoints=keypoints, cut=True)
        return result if keep.all() else result.select(keep)

    def _masked(self) -> np.ndarray:
        """bool (n,): which instances have a mask."""
        return np.zeros(len(self.boxes), bool) if self.masks is None else self.masks.owned(len(self.boxes))

    def select(self, keep: np.ndarray) -> Sample:
        """The instances that `keep`, bool (n,), says."""
        return self.replaced(
            boxes=self.boxes[keep],
            classes=self.classes[keep],
            masks=self.masks and self.masks.select(keep),
            keypoints=None if self.keypoints is None else self.keypoints[keep],
        )


def moved_boxes(boxes: np.ndarray, transform: Transform) -> np.ndarray:
    """The extents (n, 4) of the four corners of boxes (n, 4) after `transform`."""
    x0, y0, x1, y1 = boxes.T
    corners = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], axis=1).reshape(-1, 2)
    corners = transform.points(corners).reshape(-1, 4, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


class Augmentation(Protocol):
    """One entry of INPUT.AUGMENTATIONS; its constructor takes the entry's arguments by name.

    A class may have `defaults(cfg)`, a static method that gives arguments an entry does not: keys that it reads.

    Attributes:
        partners: how many other samples it needs. They are drawn from the training data, and have gone through the
            entries of the list before this one, with random numbers of their own.
    """

    partners: int

    def __call__(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample] = ()) -> Sample:
        """The sample augmented; nothing of `sample` or `partners` is written to.

        Args:
            random: of this sample, which all entries of the list draw from in turn: seeded by (seed, number of the
                sample in the run) alone. Any other source of random numbers makes a resumed run another.
        """
        ...
