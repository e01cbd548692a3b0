"""The objects of a data set in arrays, and their sizes in the images as training resizes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fvcore.common.config import CfgNode

from ...data.augmentations import build_augmentations
from ...data.augmentations.resize import ResizeShortestEdge
from ...data.coco import CocoDataset
from ...data.transforms import short_side_size


@dataclass(frozen=True)
class Objects:
    """The n objects of a data set's m images; crowds are left out, as in training.

    Attributes:
        boxes: float64 (n, 2) width and height px, in the image file.
        classes: int64 (n,).
        image: int64 (n,), the position of each one's image.
        image_sizes: int64 (m, 2) height and width px.
        crowds: how many crowds there are besides.
    """

    boxes: np.ndarray
    classes: np.ndarray
    image: np.ndarray
    image_sizes: np.ndarray
    crowds: int

    @property
    def per_image(self) -> np.ndarray:
        """int64 (m,): how many objects each image has."""
        return np.bincount(self.image, minlength=len(self.image_sizes))

    def per_class(self, count: int) -> np.ndarray:
        """int64 (count,): how many objects of each class there are."""
        return np.bincount(self.classes, minlength=count)


def list_objects(dataset: CocoDataset) -> Objects:
    """The objects of all images; none is opened."""
    boxes, classes, counts, crowds = [np.zeros((0, 4))], [np.zeros(0, np.int64)], [], 0
    for i in range(len(dataset)):
        found = dataset.annotations(i, masks=False)
        boxes.append(found.boxes[~found.crowd].astype(np.float64))
        classes.append(found.classes[~found.crowd])
        counts.append(len(classes[-1]))
        crowds += int(found.crowd.sum())
    corners = np.concatenate(boxes)
    return Objects(
        boxes=corners[:, 2:] - corners[:, :2],
        classes=np.concatenate(classes),
        image=np.repeat(np.arange(len(dataset)), counts),
        image_sizes=dataset.sizes.numpy(),
        crowds=crowds,
    )


@dataclass(frozen=True)
class Resized:
    """The resizing of a training.

    Attributes:
        short_side: px of the short side in the middle of those that are drawn; 0 leaves images as they are.
        max_size: px that the long side has at most.
        others: the augmentations besides that change sizes or choose objects.
        tile: px of the windows that are resized; 0: whole images are.
    """

    short_side: int
    max_size: int
    others: tuple[str, ...]
    tile: int = 0

    def boxes(self, objects: Objects) -> np.ndarray:
        """float64 (n, 2): width and height px of objects in the resized images."""
        seen = np.minimum(objects.image_sizes, self.tile) if self.tile else objects.image_sizes
        sizes, position = np.unique(seen, axis=0, return_inverse=True)
        new = np.array([short_side_size(*size, self.short_side, self.max_size) for size in sizes.tolist()])
        factors = (new / sizes)[position.reshape(-1)[objects.image]]
        return objects.boxes * factors[:, ::-1]


# Augmentations after which an object has the size that it had.
SAME_SIZE = (
    "RandomFlip", "RandomGrayscale", "GaussianBlur", "GaussianNoise", "JPEG", "RandomBrightness", "RandomContrast",
    "RandomSaturation", "RandomLighting", "PhotometricDistort", "RandomErasing", "CopyPaste", "MixUp",
)  # fmt: skip


def resizing(cfg: CfgNode) -> Resized | None:
    """How a training of `cfg` resizes its images; None where INPUT.AUGMENTATIONS has no ResizeShortestEdge."""
    augmentations = build_augmentations(cfg)
    resizes = [one for one in augmentations if isinstance(one, ResizeShortestEdge)]
    if not resizes:
        return None
    last = resizes[-1]
    names = (type(one).__name__ for one in augmentations if one is not last)
    others = tuple(dict.fromkeys(name for name in names if name not in SAME_SIZE))
    sides = sorted(last.short_sides)
    middle = sum(sides) // 2 if last.sampling == "range" else sides[len(sides) // 2]
    return Resized(middle, last.max_size, others, cfg.INPUT.TILE.SIZE)
