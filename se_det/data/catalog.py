"""Data sets with a name: where their annotation file and their images lie."""

from __future__ import annotations

import os
from pathlib import Path

from ..config.paths import expand_path
from ..errors import DataError, suggestion
from .coco import CocoDataset, read_coco
from .dataset_entry import DatasetEntry
from .named import NAMED_SETS

ROOT_VARIABLE = "DETECTRON2_DATASETS"
DEFAULT_ROOT = "datasets"
MAKE_SHAPES = "Make the data set with `python datasets/make_shapes.py`"


def _coco(
    year: int, part: str, images: str, *, kind: str = "instances", drop_empty_boxes: bool = False
) -> DatasetEntry:
    return DatasetEntry(
        f"coco/annotations/{kind}_{part}{year}.json", f"coco/{images}{year}", drop_empty_boxes=drop_empty_boxes
    )


DATASETS: dict[str, DatasetEntry] = {
    "coco_2017_train": _coco(2017, "train", "train", drop_empty_boxes=True),
    "coco_2017_val": _coco(2017, "val", "val"),
    "coco_2014_train": _coco(2014, "train", "train", drop_empty_boxes=True),
    "coco_2014_val": _coco(2014, "val", "val"),
    "coco_2014_minival": _coco(2014, "minival", "val"),
    # Most of val2014, which the train set of 2017 took in: it may have one of the two boxes without area.
    "coco_2014_valminusminival": _coco(2014, "valminusminival", "val", drop_empty_boxes=True),
    "keypoints_coco_2014_train": _coco(2014, "train", "train", kind="person_keypoints"),
    "keypoints_coco_2014_val": _coco(2014, "val", "val", kind="person_keypoints"),
    "keypoints_coco_2014_minival": _coco(2014, "minival", "val", kind="person_keypoints"),
    "keypoints_coco_2014_valminusminival": _coco(2014, "valminusminival", "val", kind="person_keypoints"),
    "keypoints_coco_2017_train": _coco(2017, "train", "train", kind="person_keypoints"),
    "keypoints_coco_2017_val": _coco(2017, "val", "val", kind="person_keypoints"),
    "shapes_train": DatasetEntry("shapes/annotations/instances_train.json", "shapes/train", remedy=MAKE_SHAPES),
    "shapes_val": DatasetEntry("shapes/annotations/instances_val.json", "shapes/val", remedy=MAKE_SHAPES),
    **NAMED_SETS,
}


def register_dataset(name: str, json: str | os.PathLike, images: str | os.PathLike) -> None:
    """Give a COCO annotation file and the folder of its images a name for DATASETS.TRAIN and DATASETS.TEST.

    Raises:
        DataError: the name stands for other files already.
    """
    entry = DatasetEntry(os.fspath(json), os.fspath(images))
    if DATASETS.get(name, entry) != entry:
        raise DataError(f"There is a data set '{name}' already ({DATASETS[name].json}): choose another name.")
    DATASETS[name] = entry


def dataset_paths(name: str) -> tuple[Path, Path]:
    """The annotation file and the folder of images of a named data set; they need not exist.

    Raises:
        DataError: no data set has this name.
    """
    entry = _entry(name)
    return _root() / entry.json, _root() / entry.images


def _root() -> Path:
    return Path(expand_path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT, ROOT_VARIABLE))


def open_dataset(name: str, *, absolute_file_names: bool = False) -> CocoDataset:
    """Read a named data set; see `read_coco`.

    Raises:
        DataError: no data set has this name, its files are not there, or they cannot be used.
    """
    entry = _entry(name)
    json, images = dataset_paths(name)
    for path, there, what in (
        (json, json.exists() if entry.open else json.is_file(), "annotation file"),
        (images, images.is_dir(), "folder of images"),
    ):
        if not there:
            root = os.environ.get(ROOT_VARIABLE)
            setting = f"{ROOT_VARIABLE} is {root}" if root else f"{ROOT_VARIABLE} is not set, so it is {DEFAULT_ROOT}"
            raise DataError(
                f"The {what} of the data set '{name}' is not there: {path.absolute()} ({setting}). {entry.remedy}, or "
                f"set {ROOT_VARIABLE} to the folder that holds {Path(entry.json).parts[0]}/."
            )
    if entry.open is not None:
        return entry.open(_root())
    return read_coco(json, images, drop_empty_boxes=entry.drop_empty_boxes, absolute_file_names=absolute_file_names)


def _entry(name: str) -> DatasetEntry:
    if name not in DATASETS:
        raise DataError(
            f"There is no data set '{name}'.{suggestion(name, DATASETS)} Known are {', '.join(sorted(DATASETS))}; "
            "for your own files give DATASETS.TRAIN_JSON and DATASETS.TRAIN_IMAGES (--train-json, --train-images)."
        )
    return DATASETS[name]
