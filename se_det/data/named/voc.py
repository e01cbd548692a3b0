"""Pascal VOC 2007 and 2012 (Everingham et al., IJCV 2010) in their own layout: an XML per image, lists of splits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from ...errors import DataError
from ..coco import CocoDataset, read_coco
from ..dataset_entry import DatasetEntry
from ..formats.reading import read_xml
from .converted import keep_as_coco

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
YEAR = "voc_year"  # in the JSON's `info`: the year whose metric the data set is evaluated by
DIFFICULT = "voc_difficult"  # of an annotation: found or not, it does not count in the evaluation


def open_voc(root: Path, *, folder: str, split: str, year: int) -> CocoDataset:
    """Read a split. Objects that are marked difficult are trained on, as in Detectron2.

    Raises:
        DataError: a file is missing or has a fault.
    """
    place = root / folder
    listed = place / "ImageSets" / "Main" / f"{split}.txt"
    try:
        names = [line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"The list of images {listed} cannot be read: {error.strerror or error}.") from error
    images, annotations = [], []
    for name in names:
        path = place / "Annotations" / f"{name}.xml"
        element = read_xml(path)
        size = {side: int(_number(path, element, f"size/{side}")) for side in ("height", "width")}
        images.append({"id": name, "file_name": f"{name}.jpg", **size})
        for found in element.findall("object"):
            annotations.append({"id": len(annotations) + 1, "image_id": name, **_object(path, found)})
    document = {
        "info": {"description": f"{folder}, {split}", YEAR: year},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for number, label in enumerate(CLASSES, 1)],
    }
    return read_coco(keep_as_coco(document), place / "JPEGImages").evaluated_by(instances="pascal_voc")


def _object(path: Path, element: Element) -> dict[str, Any]:
    """COCO's words for an object; pixels are counted from 1 in the XML, and its corners are inside."""
    label = (element.findtext("name") or "").strip()
    if label not in CLASSES:
        raise DataError(f"{path}: the class {label!r} of an object is none of VOC's: {', '.join(CLASSES)}.")
    left, top, right, bottom = (
        _number(path, element, f"bndbox/{side}") - (side in ("xmin", "ymin"))
        for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return {
        "category_id": CLASSES.index(label) + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": 0,
        DIFFICULT: int((element.findtext("difficult") or "0").strip() == "1"),
    }


def _number(path: Path, element: Element, where: str) -> float:
    text = element.findtext(where)
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {where} is {text!r} and must be a number of px.") from error


def _entry(split: str, year: int) -> DatasetEntry:
    folder = f"VOC{year}"
    return DatasetEntry(
        f"{folder}/ImageSets/Main/{split}.txt",
        f"{folder}/JPEGImages",
        open=partial(open_voc, folder=folder, split=split, year=year),
    )


VOC: dict[str, DatasetEntry] = {
    f"voc_{year}_{split}": _entry(split, year)
    for year, splits in ((2007, ("trainval", "train", "val", "test")), (2012, ("trainval", "train", "val")))
    for split in splits
}
