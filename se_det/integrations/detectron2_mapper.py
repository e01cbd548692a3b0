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
    records = load_coco_json(str(dataset.json_path), str(dataset.images_folder), "se_det_comparison")
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[T.ResizeShortestEdge((short_side,), max_size, "choice"), T.RandomFlip()],
        image_format="BGR",
        use_instance_mask=masks,
    )
    return build_detection_train_loader(
        filter_images_with_only_crowd_annotations(records), mapper=mapper, total_batch_size=1,
        aspect_ratio_grouping=False, num_workers=num_workers,
    )  # fmt: skip
