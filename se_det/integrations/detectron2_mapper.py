"""Training samples as Detectron2's own loader makes them, to compare ours with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.datasets import load_coco_json

from ..data.coco_dataset import CocoDataset


def mapped_samples(
    dataset: CocoDataset, *, short_side: int, max_size: int, masks: bool
) -> tuple[int, Callable[[int], dict[str, Any]]]:
    """The number of images that have annotations, and what makes the sample of one: DatasetMapper on load_coco_json,
    with ResizeShortestEdge and RandomFlip."""
    records = load_coco_json(str(dataset.json_path), str(dataset.images_folder), "se_det_comparison")
    records = filter_images_with_only_crowd_annotations(records)
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[T.ResizeShortestEdge((short_side,), max_size, "choice"), T.RandomFlip()],
        image_format="BGR",
        use_instance_mask=masks,
    )
    return len(records), lambda i: mapper(records[i])
