"""Data sets of other formats than COCO's instances, by Detectron2's names and in its layouts."""

from ..dataset_entry import DatasetEntry
from .cityscapes import CITYSCAPES
from .coco_panoptic import COCO_PANOPTIC
from .lvis import LVIS
from .voc import VOC

NAMED_SETS: dict[str, DatasetEntry] = {**COCO_PANOPTIC, **LVIS, **VOC, **CITYSCAPES}

__all__ = ["NAMED_SETS"]
