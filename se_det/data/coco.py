"""A COCO data set: read once, checked as a whole, kept as a few tensors."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import DataError
from . import coco_checks as checks
from .annotation_marks import CROWD_REMEDY, crowd_like_marks, crowd_warnings
from .coco_dataset import CocoDataset, ImageAnnotations, ImageInfo
from .coco_json import parse_coco
from .coco_masks import Segmentations, segmentations
from .keypoints import read_keypoints
from .polygons import nesting_depth
from .string_array import StringArray

__all__ = ["CocoDataset", "ImageAnnotations", "ImageInfo", "compare_categories", "read_coco"]

logger = logging.getLogger(__name__)


def read_coco(
    json_path: str | os.PathLike,
    images_folder: str | os.PathLike,
    *,
    drop_empty_boxes: bool = False,
    absolute_file_names: bool = False,
    file_name: Callable[[dict], str] | None = None,
) -> CocoDataset:
    """Read and check a COCO annotation file. Ids may be sparse; polygons, RLEs and crowds may be mixed.

    Args:
        json_path: the annotation file.
        images_folder: the folder that its file names are relative to.
        drop_empty_boxes: leave out boxes without area and polygons of fewer than 3 points, and log how many, instead
            of refusing them: for released files whose faults are known.
        absolute_file_names: read also files whose name is absolute, or climbs out of the folder with "..".
        file_name: of an entry of 'images', where it is not its `file_name`.

    Raises:
        DataError: a sentence with the file, the id, the value, and what to do.
    """
    start = time.perf_counter()
    path, folder = Path(json_path), Path(images_folder)
    if not folder.is_dir():
        raise DataError(f"The folder of images {folder} (of {path}) is not there: correct the path.")
    content = parse_coco(path)
    category_ids, category_names = checks.categories(path, content.categories)
    if file_name is not None:
        content.images = [{**image, "file_name": file_name(image)} for image in content.images]
    image_ids, file_names, image_sizes = checks.images(path, content.images, absolute=absolute_file_names)

    found = content.annotations
    ids = checks.annotation_ids(path, found)
    owners = checks.image_indices(path, found, ids, image_ids)
    classes = checks.class_indices(path, found, ids, category_ids)
    xywh = checks.boxes(path, found, ids)
    empty = checks.zero_area(path, xywh, ids, allowed=drop_empty_boxes)
    crowd = checks.crowds(path, found, ids)
    areas = checks.areas(path, found, ids, xywh)
    masks = segmentations(path, found, ids, image_sizes[owners], xywh, content.polygons, lenient=drop_empty_boxes)
    keypoints = read_keypoints(path, content.categories, found, ids)
    _warn_of_marks(path, found, crowd, classes, category_names, masks)
    if empty.any():
        logger.info("%s: %d annotations without area are left out.", path, int(empty.sum()))

    # In the order of the images, and of the file within an image.
    order = np.argsort(owners, kind="stable")
    order = order[~empty[order]]
    per_image = np.bincount(owners[order], minlength=len(image_ids))
    # The corner and the sides are rounded to float32 before they are added, as Detectron2 does.
    xywh = xywh[order].astype(np.float32)
    texts = isinstance(image_ids[0], str)
    dataset = CocoDataset(
        json_path=path,
        images_folder=folder,
        category_ids=category_ids,
        category_names=category_names,
        image_ids=StringArray(image_ids) if texts else torch.tensor(image_ids, dtype=torch.int64),
        file_names=StringArray(file_names),
        columns={
            "index": torch.arange(len(image_ids)),
            "sizes": torch.from_numpy(image_sizes),
            "first": torch.from_numpy(np.concatenate(([0], np.cumsum(per_image)))),
            "boxes": torch.from_numpy(np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)),
            "classes": torch.from_numpy(classes[order]),
            "crowd": torch.from_numpy(crowd[order]),
            "areas": torch.from_numpy(areas[order]),
            "polygon_range": torch.from_numpy(masks.polygon_range[order]),
            "polygon_start": torch.from_numpy(masks.polygon_start),
            "vertices": torch.from_numpy(masks.vertices),
            "runs_range": torch.from_numpy(masks.runs_range[order]),
            "runs": torch.from_numpy(masks.runs.view(np.int32)),  # as they are: few uint32 operations exist
            "keypoint_row": torch.from_numpy(keypoints.row[order]),
            "keypoints": torch.from_numpy(keypoints.values),
        },
        keypoints=keypoints.layout,
        keypoint_fault=keypoints.fault,
        declared_counts=tuple(c.get("image_count") for c in sorted(content.categories, key=lambda c: c["id"])),
    )
    logger.info(
        "%s: %d images, %d annotations (%d crowds), %d categories, read in %.1f s.",
        path, len(image_ids), len(order), int(crowd[order].sum()), len(category_ids), time.perf_counter() - start,
    )  # fmt: skip
    return dataset


def _warn_of_marks(
    path: Path, annotations: list[dict], crowd: np.ndarray, classes: np.ndarray, names: Sequence[str],
    masks: Segmentations,
) -> None:  # fmt: skip
    """Say what is in the file that training and evaluation do not take as its author may mean it."""
    found = [sentence for _, sentence in crowd_warnings(crowd, classes, names)]
    if found:
        logger.warning("%s: %s: %s.", path, "; ".join(found), CROWD_REMEDY)
    for key, positions in crowd_like_marks(annotations).items():
        logger.warning(
            "%s: %d annotations are marked %s, which is no mark of COCO's: they count as plain objects. Set iscrowd to "
            "1 for those that shall not.", path, len(positions), ascii(key),
        )  # fmt: skip
    owner = np.full(len(masks.polygon_start) - 1, -1)
    for at in np.flatnonzero(np.diff(masks.polygon_range)[:, 0] > 1).tolist():
        owner[slice(*masks.polygon_range[at])] = at
    holes = int((nesting_depth(masks.vertices, masks.polygon_start, owner) % 2).sum())
    if holes:
        logger.warning(
            "%s: %d polygons lie inside another one of their annotation. COCO draws the union, so a hole is filled: "
            "encode such masks as RLE (`se-det check-data --fix OUT` does where the area says so).", path, holes,
        )  # fmt: skip


def compare_categories(train: CocoDataset, val: CocoDataset) -> None:
    """Refuse two data sets whose category ids or names differ: the classes of one would be scored as others.

    Raises:
        DataError: naming the ids and names that differ.
    """
    labels = [d.pixel_labels and d.pixel_labels.names for d in (train, val)]
    if labels[0] != labels[1]:
        told = [f"{d.json_path} has {_listed(list(map(repr, names or ())))}" for d, names in zip((train, val), labels)]
        raise DataError(f"The classes of pixels differ: {'; '.join(told)}. Give both sets the same.")
    one, other = (dict(zip(d.category_ids, d.category_names)) for d in (train, val))
    if one == other:
        return
    faults = [
        f"{holder.json_path} alone has {_listed([f'{i} ({names[i]!r})' for i in names if i not in lacking])}"
        for holder, names, lacking in ((train, one, other), (val, other, one))
        if set(names) - set(lacking)
    ]
    renamed = [f"{i} ({one[i]!r} and {other[i]!r})" for i in one if i in other and one[i] != other[i]]
    if renamed:
        faults.append(f"of other names are {_listed(renamed)}")
    raise DataError(
        f"The categories of {train.json_path} and {val.json_path} differ: {'; '.join(faults)}. Declare the same ids "
        "with the same names in both files, also those that one of them has no annotations of."
    )


def _listed(items: list[str]) -> str:
    return ", ".join(items[:10]) + (f" and {len(items) - 10} more" if len(items) > 10 else "")
