"""What a name of DATASETS.TRAIN and DATASETS.TEST stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .coco_dataset import CocoDataset

LAYOUT = "Lay the data set out as datasets/README.md says"


@dataclass(frozen=True)
class DatasetEntry:
    """A named data set.

    Attributes:
        json: the COCO annotation file, or what stands for it; relative paths count from $DETECTRON2_DATASETS
            (./datasets when not set).
        images: the folder its file names are relative to; likewise.
        drop_empty_boxes: leave out boxes without area, which the released file is known to have, with a count logged;
            in other files such a box is an error.
        remedy: what to do when the files are not there.
        open: reads it, given the folder that paths count from; None reads `json` as COCO's instances.
    """

    json: str
    images: str
    drop_empty_boxes: bool = False
    remedy: str = LAYOUT
    open: Callable[[Path], CocoDataset] | None = None
