"""COCO's panoptic data for Panoptic FPN: instances apart from classes of pixels (Detectron2's `_separated`), and the
classes of pixels alone (`_stuffonly`); and one's own data in that format."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_tools

from ...errors import DataError
from ..coco import CocoDataset, read_coco
from ..dataset_entry import DatasetEntry
from ..label_folder import read_labelled_images
from ..panoptic import PanopticFiles, PanopticLabels, PanopticTruth, read_categories
from ..pixel_labels import THINGS, LabelFolder
from .converted import keep_as_coco


def open_separated(
    root: Path, *, json: str, images: str, panoptic: str, panoptic_json: str, stuff: str, drop_empty_boxes: bool = False
) -> CocoDataset:
    """Instances of a COCO JSON, with classes of pixels from a folder of PNGs, and the panoptic truth."""
    labels = _stuff(root, panoptic_json, stuff, panoptic)
    dataset = read_coco(root / json, root / images, drop_empty_boxes=drop_empty_boxes)
    return dataset.with_labels(labels, PanopticFiles(root / panoptic_json, root / panoptic))


def open_stuff_only(root: Path, *, images: str, panoptic: str, panoptic_json: str, stuff: str) -> CocoDataset:
    """Classes of pixels alone."""
    labels = _stuff(root, panoptic_json, stuff, panoptic)
    if isinstance(labels, PanopticLabels):
        names = [Path(name).with_suffix(".jpg").as_posix() for name in labels.files.load().file_names]
        return read_labelled_images(root / images, labels, file_names=names)
    return read_labelled_images(root / images, labels)


def _stuff(root: Path, panoptic_json: str, stuff: str, panoptic: str) -> LabelFolder | PanopticLabels:
    """The prepared folder of labels; where there is none, what it would be made from."""
    categories = read_categories(root / panoptic_json)
    if not (root / stuff).is_dir() and (root / panoptic).is_dir():
        return PanopticLabels(PanopticFiles(root / panoptic_json, root / panoptic), categories)
    found = [(number, name) for number, name, thing in categories if not thing]
    return LabelFolder(
        root / stuff, (THINGS, *(name for _, name in found)), category_ids=(0, *(number for number, _ in found))
    )


def read_panoptic(panoptic_json: Path, panoptic: Path, images: Path, instances: CocoDataset | None) -> CocoDataset:
    """One's own panoptic data; without `instances` they are the panoptic PNGs' own.

    Raises:
        DataError: a file is missing or has a fault.
    """
    files = PanopticFiles(panoptic_json, panoptic)
    if not panoptic.is_dir():
        raise DataError(f"The folder of panoptic PNGs {panoptic} (of {panoptic_json}) is not there: correct the path.")
    if instances is None:
        instances = read_coco(instances_of_panoptic(files.load()), images)
    return instances.with_labels(PanopticLabels(files, read_categories(panoptic_json)), files)


def instances_of_panoptic(truth: PanopticTruth) -> Path:
    """A COCO JSON, in the cache, of the things of a panoptic one, with their masks.

    Raises:
        DataError: an image has no width and height in the JSON, or a PNG cannot be read.
    """
    things = {c["id"]: c for c in truth.categories if c["isthing"]}
    entries, annotations = [], []
    for at, (image_id, name, size) in enumerate(zip(truth.image_ids, truth.file_names, truth.sizes)):
        segments = truth.segments(at)
        numbers = segments.read()
        if size not in ((None, None), numbers.shape):
            raise DataError(
                f"{truth.json_path}: image {image_id!r} is {size[1]} x {size[0]} px (width x height), and its PNG "
                f"{segments.path} {numbers.shape[1]} x {numbers.shape[0]}."
            )
        entries.append({"id": image_id, "file_name": name, "height": numbers.shape[0], "width": numbers.shape[1]})
        for number, category, crowd in zip(
            segments.ids.tolist(), segments.categories.tolist(), segments.crowd.tolist()
        ):
            if category in things and (mask := numbers == number).any():
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image_id, "category_id": category, **region(mask, crowd)}
                )
    categories = [{"id": number, "name": c["name"]} for number, c in things.items()]
    return keep_as_coco({"images": entries, "annotations": annotations, "categories": categories})


def region(mask: np.ndarray, crowd: bool) -> dict:
    """What COCO says of a mask."""
    rle = mask_tools.encode(np.asfortranarray(mask, np.uint8))
    return {
        "iscrowd": int(crowd),
        "bbox": mask_tools.toBbox(rle).tolist(),
        "area": int(mask.sum()),
        "segmentation": {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")},
    }


def panoptic_entries(
    name: str, *, json: str, images: str, panoptic: str, panoptic_json: str, stuff: str, drop_empty_boxes: bool = False,
    remedy: str | None = None,
) -> dict[str, DatasetEntry]:  # fmt: skip
    """The two data sets of a panoptic one."""
    where = {"images": images, "panoptic": panoptic, "panoptic_json": panoptic_json, "stuff": stuff}
    more = {} if remedy is None else {"remedy": remedy}
    separated = partial(open_separated, json=json, drop_empty_boxes=drop_empty_boxes, **where)
    return {
        f"{name}_separated": DatasetEntry(json, images, drop_empty_boxes=drop_empty_boxes, open=separated, **more),
        f"{name}_stuffonly": DatasetEntry(panoptic_json, images, open=partial(open_stuff_only, **where), **more),
    }


def _coco(part: str, suffix: str = "") -> dict[str, DatasetEntry]:
    return panoptic_entries(
        f"coco_2017_{part}{suffix}_panoptic",
        json=f"coco/annotations/instances_{part}2017{suffix}.json",
        images=f"coco/{part}2017",
        panoptic=f"coco/panoptic_{part}2017{suffix}",
        panoptic_json=f"coco/annotations/panoptic_{part}2017{suffix}.json",
        stuff=f"coco/panoptic_stuff_{part}2017{suffix}",
        drop_empty_boxes=part == "train",
    )


def _shapes(part: str) -> dict[str, DatasetEntry]:
    return panoptic_entries(
        f"shapes_{part}_panoptic",
        json=f"shapes/annotations/instances_{part}.json",
        images=f"shapes/{part}",
        panoptic=f"shapes/panoptic_{part}",
        panoptic_json=f"shapes/annotations/panoptic_{part}.json",
        stuff=f"shapes/panoptic_stuff_{part}",
        remedy="Make the data set with `python datasets/make_shapes.py --panoptic`",
    )


COCO_PANOPTIC: dict[str, DatasetEntry] = {
    **_coco("train"), **_coco("val"), **_coco("val", "_100"), **_shapes("train"), **_shapes("val"),
}  # fmt: skip
