"""LVIS (Gupta et al., arXiv 1908.03195): COCO's images and format, found by the `coco_url` of each image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..coco import CocoDataset, read_coco
from ..dataset_entry import DatasetEntry


def open_lvis(root: Path, *, json: str, images: str) -> CocoDataset:
    """Read a LVIS JSON; the images are in COCO's folders of 2017."""
    dataset = read_coco(root / json, root / images, file_name=partial(file_of_url, json))
    return dataset.evaluated_by(instances="lvis")


def file_of_url(json: str, image: dict[str, Any]) -> str:
    """`val2017/000000397133.jpg` of an image's URL.

    Raises:
        DataError: it has none.
    """
    url = image.get("coco_url")
    if not isinstance(url, str) or url.count("/") < 1:
        raise DataError(f"{json}: image {image.get('id')!r} has no coco_url, by which LVIS names its file.")
    return "/".join(url.split("/")[-2:])


def _entry(json: str) -> DatasetEntry:
    return DatasetEntry(f"lvis/{json}", "coco", open=partial(open_lvis, json=f"lvis/{json}", images="coco"))


LVIS: dict[str, DatasetEntry] = {
    "lvis_v1_train": _entry("lvis_v1_train.json"),
    "lvis_v1_val": _entry("lvis_v1_val.json"),
    "lvis_v1_test_dev": _entry("lvis_v1_image_info_test_dev.json"),
    "lvis_v1_test_challenge": _entry("lvis_v1_image_info_test_challenge.json"),
    "lvis_v0.5_train": _entry("lvis_v0.5_train.json"),
    "lvis_v0.5_val": _entry("lvis_v0.5_val.json"),
    "lvis_v0.5_val_rand_100": _entry("lvis_v0.5_val_rand_100.json"),
    "lvis_v0.5_test": _entry("lvis_v0.5_image_info_test.json"),
    "lvis_v0.5_train_cocofied": _entry("lvis_v0.5_train_cocofied.json"),
    "lvis_v0.5_val_cocofied": _entry("lvis_v0.5_val_cocofied.json"),
}
