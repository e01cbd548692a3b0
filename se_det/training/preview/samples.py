"""Samples of a training as its loader makes them, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fvcore.common.config import CfgNode
from pycocotools import mask as coco_mask

from ...data.coco import CocoDataset
from ...data.loader import build_train_loader, images_trained_on
from ...data.samplers import Item
from ...data.tile_truth import find_windows, train_tiles
from ...inference.drawing import draw_detections

EPOCHS = 10  # looked through for an image without objects


@dataclass(frozen=True)
class Shown:
    """A sample of a training.

    Attributes:
        step: of the training that it is in, from 1.
        file: the image's file.
        size: (width, height) px of that file.
        window: of the file, XYXY px, where training is on windows; None: all of it.
        pixels: uint8 (H, W, 3), BGR, augmented and resized.
        boxes: float32 (n, 4) XYXY px.
        classes: int64 (n,).
        masks: see `detection.masks`, as NumPy arrays; None without a mask head.
        keypoints: float32 (n, K, 3) x, y px and v; None without a keypoint head.
    """

    step: int
    file: Path
    size: tuple[int, int]
    window: tuple[int, int, int, int] | None
    pixels: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    masks: dict[str, np.ndarray] | None
    keypoints: np.ndarray | None = None
    skeleton: Sequence[tuple[int, int]] = ()

    def picture(self, class_names: Sequence[str], long_side: int) -> np.ndarray:
        """The sample with its ground truth drawn, its long side of so many px."""
        height, width = self.pixels.shape[:2]
        factor = long_side / max(height, width)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        # Enlarged, a pixel stays one: this is what the network gets.
        shown = cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
        scale = np.array([size[0] / width, size[1] / height])
        instances = {"pred_boxes": self.boxes * np.tile(scale, 2), "pred_classes": self.classes}
        if self.masks is not None and len(self.boxes):
            instances["pred_masks"] = drawn_masks(self.masks, len(self.boxes), size, scale)
        if self.keypoints is not None:
            instances["pred_keypoints"] = self.keypoints * [*scale, 1]
        return draw_detections(shown, instances, class_names, score_threshold=0, skeleton=self.skeleton)


def draw_samples(cfg: CfgNode, datasets: Sequence[CocoDataset], *, seed: int, count: int) -> list[Shown]:
    """The first samples of a training with this seed. Where images without objects are trained on and none is among
    them, the last one is the first such sample that the training comes to.

    Raises:
        SeDetError: as `build_train_loader` and its samples.
    """
    used = images_trained_on(cfg, datasets, seed=seed)
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.DATALOADER.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"  # of the subset
    cfg.DATALOADER.NUM_WORKERS = 0
    loader = build_train_loader(cfg, used, seed=seed)
    tiles = train_tiles(cfg)
    if tiles is None:
        backgrounds, images = _without_objects(used), sum(map(len, used))
    else:
        windows = find_windows(used, tiles)
        images = len(windows)
        backgrounds = set(range(windows.full, images)) if tiles.empty else set()
    items: Iterator[Item] = chain.from_iterable(loader.keys())
    chosen = list(islice(items, count))
    if backgrounds and not any(index in backgrounds for _, index in chosen):
        # Each image comes up in an epoch or soon after; an epoch that repeats images is longer.
        later = islice(items, EPOCHS * images)
        chosen[-1] = next((item for item in later if item[1] in backgrounds), chosen[-1])
    bones = () if datasets[0].keypoints is None else datasets[0].keypoints.skeleton
    return [
        _shown(sample, number // cfg.SOLVER.IMS_PER_BATCH + 1, cfg.INPUT.FORMAT, bones)
        for number, index in chosen
        for sample in loader.load([(number, index)])
    ]


def _without_objects(datasets: Sequence[CocoDataset]) -> set[int]:
    """Of all images, one set after another, those without an object."""
    firsts = accumulate((len(dataset) for dataset in datasets), initial=0)
    return {
        first + i
        for first, dataset in zip(firsts, datasets)
        for i in range(len(dataset))
        if not len(dataset.annotations(i, crowds=False, masks=False).classes)
    }


def _shown(sample: dict[str, Any], step: int, format: str, bones: Sequence[tuple[int, int]]) -> Shown:
    pixels = sample["image"].numpy().transpose(1, 2, 0)
    truth = sample["instances"]
    masks = truth.get("gt_masks")
    return Shown(
        step=step,
        file=Path(sample["file_name"]),
        size=(sample["width"], sample["height"]),
        window=sample.get("window"),
        pixels=np.ascontiguousarray(pixels[..., ::-1] if format == "RGB" else pixels),
        boxes=truth["gt_boxes"].numpy(),
        classes=truth["gt_classes"].numpy(),
        masks=None if masks is None else {key: value.numpy() for key, value in masks.items()},
        keypoints=truth["gt_keypoints"].numpy() if "gt_keypoints" in truth else None,
        skeleton=bones,
    )


def drawn_masks(masks: dict[str, np.ndarray], count: int, size: tuple[int, int], scale: np.ndarray) -> np.ndarray:
    """uint8 (count, height, width): each instance's mask in an image of `size` (width, height)."""
    drawn = np.zeros((count, size[1], size[0]), np.uint8)
    ends = np.cumsum(masks["polygon_points"])
    for owner, points, end in zip(masks["polygon_owner"], masks["polygon_points"], ends):
        outline = masks["polygons"][end - points : end] * scale
        (rle,) = coco_mask.frPyObjects([outline.reshape(-1).tolist()], size[1], size[0])  # as the loss draws them
        drawn[owner] |= coco_mask.decode(rle)
    for owner, bitmap in zip(masks["bitmap_owner"], masks["bitmaps"]):
        drawn[owner] |= cv2.resize(bitmap, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return drawn
