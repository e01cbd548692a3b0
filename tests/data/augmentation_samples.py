"""Samples with ground truth of every kind, to augment: polygons, whole and torn, bitmaps, keypoints, boxes alone."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from se_det.data.augmentations import Masks, Sample


def star(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A polygon (m, 2) that does not cross itself, not convex, somewhere in the image."""
    count = int(random.integers(3, 14))
    angles = (np.arange(count) + random.uniform(0.1, 0.9, count)) * 2 * np.pi / count
    longest = random.uniform(0.1, 0.45) * min(height, width)
    radius = longest * random.uniform(0.3, 1, count)[:, None]
    centre = random.uniform(longest, [width - longest, height - longest])
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def drawn(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Their union, as COCO draws it, uint8 (height, width)."""
    runs = coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], height, width)
    return coco_mask.decode(coco_mask.merge(runs))


def random_sample(
    random: np.random.Generator, *, size: tuple[int, int] | None = None, kinds: str = "polygons bitmaps crowds",
    masks: bool = True, keypoints: bool = False,
) -> Sample:  # fmt: skip
    """An image of noise with up to 8 instances whose boxes are their masks' extents.

    Args:
        kinds: of the masks: one or two polygons; a bitmap; a bitmap of many small parts, as crowds have.
    """
    height, width = size or random.integers(60, 200, 2).tolist()
    image = np.repeat(np.repeat(random.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8), 4, 0), 4, 1)
    polygons, points, polygon_owner, bitmaps, bitmap_owner, boxes = [np.zeros((0, 2))], [], [], [], [], []
    count = int(random.integers(1, 9))
    for owner in range(count):
        kind = str(random.choice(kinds.split()))
        parts = [star(random, height, width) for _ in range(int(random.integers(1, 3)))]
        if kind == "polygons":
            polygons += parts
            points += [len(part) for part in parts]
            polygon_owner += [owner] * len(parts)
            xy = np.concatenate(parts)
            boxes.append([*xy.min(axis=0), *xy.max(axis=0)])
            continue
        mask = drawn(parts, height, width)
        if kind == "crowds":
            mask &= np.kron(random.random((height // 5 + 1, width // 5 + 1)) < 0.4, np.ones((5, 5)))[
                :height, :width
            ].astype(np.uint8)
        mask[height // 2, width // 2] |= not mask.any()
        bitmaps.append(mask)
        bitmap_owner.append(owner)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    points_of_keys = np.concatenate(
        [random.uniform(0, 1, (count, 4, 2)) * [width, height], random.integers(0, 3, (count, 4, 1))], axis=2
    )
    return Sample(
        image=image[:height, :width],
        boxes=np.array(boxes, np.float64),
        classes=random.integers(0, 5, count),
        masks=Masks(
            polygons=np.concatenate(polygons),
            polygon_points=np.array(points, np.int64),
            polygon_owner=np.array(polygon_owner, np.int64),
            bitmaps=bitmaps,
            bitmap_owner=np.array(bitmap_owner, np.int64),
        )
        if masks
        else None,
        keypoints=points_of_keys if keypoints else None,
        flip_pairs=np.array([1, 0, 2, 3]) if keypoints else None,
    )
