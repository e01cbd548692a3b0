"""Facts that a recipe is decided by: of the data, from its annotations alone, and of the machine."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...data.coco import CocoDataset
from ...data.tile_truth import TrainTiles, find_windows
from ...data.tiles import most_objects_in_a_window
from ...errors import SeDetError
from ...layers.half_precision import multiplies_in
from ...system import usable_cpus
from ...weights.download import cache_path
from ...weights.shipped import SHIPPED
from ...weights.source import SCHEME, get_entry

MAX_BOXES = 5000  # of which sides are kept
PATIENCE = 5  # seconds to wait for a server of weights


@dataclass(frozen=True)
class DataFacts:
    """What a data set is like.

    Attributes:
        images: to train on.
        val_images: to evaluate on.
        negatives: share of the training images without objects.
        class_images: in how many training images each class is.
        boxes: (n, 2) width and height of objects in parts of their image's shorter side; crowds are left out.
        elongation: median of an image's longer side over its shorter one.
        short_side: median of the images' shorter sides, px.
        objects: the most objects that an image has.
        masks: share of the objects with a segmentation.
        keypoints: share of the objects with a labelled keypoint.
        tile: px of the windows that the images are seen in; all numbers above but `negatives` and `masks` are then of
            windows. 0: of whole images.
        objects_in_image: the most objects that a whole image has, where that is not `objects`.
    """

    images: int
    val_images: int
    negatives: float
    class_images: tuple[int, ...]
    boxes: np.ndarray
    elongation: float
    short_side: int
    objects: int
    masks: float
    keypoints: float = 0.0
    tile: int = 0
    objects_in_image: int | None = None

    def size(self, quantile: float) -> float:
        """Square root of an object's area at a quantile, in parts of the image's shorter side; 0 without objects."""
        return float(np.quantile(np.sqrt(self.boxes.prod(1)), quantile)) if len(self.boxes) else 0.0


@dataclass(frozen=True)
class MachineFacts:
    """What a run may use.

    Attributes:
        device: "cpu", "cuda", "mps" or "xpu".
        cores: of the CPU that this process may use.
        bfloat16: whether it computes faster in it than in float32.
        weights: whether the base config's pretrained weights are here, or their server answers.
    """

    device: str
    cores: int
    bfloat16: bool
    weights: bool


def measure_data(train: CocoDataset, val: CocoDataset | None) -> DataFacts:
    """The facts of a data set; no image is opened."""
    sizes = train.sizes.numpy()
    short = sizes.min(1)
    boxes, empty, with_points, per_class = [], 0, 0, np.zeros(len(train.category_ids), dtype=int)
    for i in range(len(train)):
        found = train.annotations(i, crowds=False, masks=False, keypoints=train.keypoints is not None)
        if found.keypoints is not None:
            with_points += int((found.keypoints[..., 2] > 0).any(1).sum())
        empty += not len(found.boxes)
        per_class[np.unique(found.classes)] += 1
        boxes.append((found.boxes[:, 2:] - found.boxes[:, :2]) / short[i])
    sides = np.concatenate(boxes) if boxes else np.zeros((0, 2))
    if len(sides) > MAX_BOXES:
        sides = sides[np.linspace(0, len(sides) - 1, MAX_BOXES).astype(int)]
    objects = train.num_annotations()
    return DataFacts(
        images=len(train),
        val_images=len(val) if val is not None else 0,
        negatives=empty / len(train),
        class_images=tuple(per_class.tolist()),
        boxes=sides.astype(np.float64),
        elongation=float(np.median(sizes.max(1) / short)),
        short_side=int(np.median(short)),
        objects=train.max_objects_per_image(),
        masks=1 - train.num_annotations_without_mask() / objects if objects else 0.0,
        keypoints=with_points / objects if objects else 0.0,
    )


def measure_in_windows(data: DataFacts, train: CocoDataset, val: CocoDataset | None, tiles: TrainTiles) -> DataFacts:
    """What becomes of `data`, the facts of whole images, when these are seen in windows; no image is opened."""
    windows = find_windows([train], tiles)
    in_val = sum(len(tiles.plan.windows(*size)) for size in val.sizes.tolist()) if val is not None else 0
    short = min(tiles.plan.size, data.short_side)
    return replace(
        data,
        images=max(round(windows.full / (1 - tiles.empty)), 1),
        val_images=in_val,
        class_images=tuple(np.bincount(windows.classes, minlength=len(train.category_ids)).tolist()),
        boxes=data.boxes * data.short_side / short,
        elongation=1.0 if tiles.plan.size <= data.short_side else data.elongation,
        short_side=short,
        objects=most_objects_in_a_window(train, tiles.plan),
        tile=tiles.plan.size,
        objects_in_image=data.objects,
    )


def measure_machine(device: torch.device, *, weights: bool) -> MachineFacts:
    """The facts of this machine.

    Args:
        weights: whether those of the base config can be had, see `weights_at_hand`.
    """
    bfloat16 = device.type in ("cpu", "cuda") and multiplies_in("bfloat16", device)
    return MachineFacts(device.type, usable_cpus(), bfloat16, weights)


def weights_at_hand(source: str) -> bool:
    """Whether weights of the zoo are in the cache, or their server answers; a file, whether it is there."""
    if not source:
        return False
    if source.startswith(SHIPPED):
        return True
    if not source.startswith(SCHEME):
        return Path(source).is_file()
    try:
        url = get_entry(source).url
    except SeDetError:
        return False
    if url is None:
        return False
    if cache_path(url).is_file():
        return True
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False
