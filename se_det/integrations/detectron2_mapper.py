"""Training samples as Detectron2's own loader makes them, to compare ours with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.datasets import load_coco_json

from ..data.coco_dataset import CocoDataset


def mapped_batches(
    dataset: CocoDataset, *, short_side: int, max_size: int, masks: bool, num_workers: int
) -> Iterable[list[dict[str, Any]]]:
    """Endless batches of one sample: DatasetMapper on load_coco_json, with ResizeShortestEdge and RandomFlip."""
    augmentations = [T.ResizeShortestEdge((short_side,), max_size, "choice"), T.RandomFlip()]
    return _batches(dataset, augmentations, masks=masks, recompute_boxes=False, num_workers=num_workers)


def jittered_batches(
    dataset: CocoDataset, *, size: int, masks: bool, num_workers: int
) -> Iterable[list[dict[str, Any]]]:
    """The same with the large-scale jitter of its new baselines: ResizeScale, FixedSizeCrop, RandomFlip, and boxes made
    of the masks."""
    augmentations = [T.ResizeScale(0.1, 2.0, size, size), T.FixedSizeCrop((size, size)), T.RandomFlip()]
    return _batches(dataset, augmentations, masks=masks, recompute_boxes=masks, num_workers=num_workers)


def _batches(
    dataset: CocoDataset, augmentations: list[T.Augmentation], *, masks: bool, recompute_boxes: bool, num_workers: int
) -> Iterable[list[dict[str, Any]]]:
    records = load_coco_json(str(dataset.json_path), str(dataset.images_folder), "se_det_comparison")
    mapper = DatasetMapper(
        is_train=True, augmentations=augmentations, image_format="BGR", use_instance_mask=masks,
        recompute_boxes=recompute_boxes,
    )  # fmt: skip
    return build_detection_train_loader(
        filter_images_with_only_crowd_annotations(records), mapper=mapper, total_batch_size=1,
        aspect_ratio_grouping=False, num_workers=num_workers,
    )  # fmt: skip
