"""Cityscapes (Cordts et al., arXiv 1604.01685): its fine annotations, for instances, classes of pixels, and both."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import DataError
from ..coco import CocoDataset, read_coco
from ..dataset_entry import DatasetEntry
from ..label_folder import read_labelled_images
from ..listing import list_files
from ..panoptic import PanopticFiles, PanopticLabels, read_categories
from ..pixel_labels import IGNORE, LabelFolder
from .coco_panoptic import region
from .converted import keep_as_coco

IMAGE, GROUND_TRUTH = "_leftImg8bit", "_gtFine"
PER_CLASS = 1000  # a pixel of an instance is its class's id times this, and the instance's number


class Label(NamedTuple):
    """A class that is evaluated: its id in Cityscapes' files, and whether its instances are told apart."""

    name: str
    id: int
    thing: bool = False


# In the order of their training ids, 0 to 18.
LABELS = (
    Label("road", 7), Label("sidewalk", 8), Label("building", 11), Label("wall", 12), Label("fence", 13),
    Label("pole", 17), Label("traffic light", 19), Label("traffic sign", 20), Label("vegetation", 21),
    Label("terrain", 22), Label("sky", 23), Label("person", 24, True), Label("rider", 25, True), Label("car", 26, True),
    Label("truck", 27, True), Label("bus", 28, True), Label("train", 31, True), Label("motorcycle", 32, True),
    Label("bicycle", 33, True),
)  # fmt: skip
THINGS = tuple(label for label in LABELS if label.thing)


def pixel_labels(truth: Path) -> LabelFolder:
    """The 19 classes out of `*_gtFine_labelIds.png`."""
    training = {label.id: at for at, label in enumerate(LABELS)}
    return LabelFolder(
        truth,
        tuple(label.name for label in LABELS),
        category_ids=tuple(label.id for label in LABELS),
        ending=f"{GROUND_TRUTH}_labelIds.png",
        image_ending=IMAGE,
        table=tuple(training.get(value, IGNORE) for value in range(256)),
    )


def open_sem_seg(root: Path, *, images: str, truth: str) -> CocoDataset:
    """Classes of pixels."""
    dataset = read_labelled_images(root / images, pixel_labels(root / truth))
    return dataset.evaluated_by(pixels="cityscapes_sem_seg")


def open_instances(root: Path, *, images: str, truth: str) -> CocoDataset:
    """Instances with their masks, out of `*_gtFine_instanceIds.png`; what is annotated as a group is a crowd.

    Raises:
        DataError: an image has no such file, or there is no image.
    """
    folder = root / images
    names = [path.as_posix() for path in list_files(folder).files]
    if not names:
        raise DataError(f"There is no image in {folder}.")
    entries, annotations = [], []
    for name in names:
        path = root / truth / (Path(name).with_suffix("").as_posix().removesuffix(IMAGE) + "_gtFine_instanceIds.png")
        numbers = _read_instances(path)
        entries.append({"id": _image_id(name), "file_name": name, "height": len(numbers), "width": numbers.shape[1]})
        for value in np.unique(numbers).tolist():
            label = value // PER_CLASS if value >= PER_CLASS else value
            if any(label == thing.id for thing in THINGS):
                found = region(numbers == value, value < PER_CLASS)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": _image_id(name), "category_id": label, **found}
                )
    categories = [{"id": thing.id, "name": thing.name} for thing in THINGS]
    path = keep_as_coco({"images": entries, "annotations": annotations, "categories": categories})
    return read_coco(path, folder).evaluated_by(instances="cityscapes_instance")


def open_panoptic(root: Path, *, images: str, truth: str, panoptic: str) -> CocoDataset:
    """Instances, and classes of pixels and the panoptic truth of `createPanopticImgs.py` of cityscapesscripts."""
    files = PanopticFiles(root / f"{panoptic}.json", root / panoptic)
    instances = open_instances(root, images=images, truth=truth)
    return instances.with_labels(PanopticLabels(files, read_categories(files.json_path)), files)


def _image_id(name: str) -> str:
    """`aachen_000000_000019`, as the panoptic JSON calls it."""
    return Path(name).stem.removesuffix(IMAGE)


def _read_instances(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image).astype(np.int64)
    except FileNotFoundError as error:
        raise DataError(f"The instances {path} are not there: add gtFine_trainvaltest beside the images.") from error
    except Exception as error:  # of Pillow, of many kinds
        raise DataError(f"The instances {path} cannot be read: {error}.") from error


def _entries(split: str) -> dict[str, DatasetEntry]:
    where = {"images": f"cityscapes/leftImg8bit/{split}", "truth": f"cityscapes/gtFine/{split}"}
    found = {
        f"cityscapes_fine_instance_seg_{split}": partial(open_instances, **where),
        f"cityscapes_fine_sem_seg_{split}": partial(open_sem_seg, **where),
    }
    if split != "test":
        panoptic = f"cityscapes/gtFine/cityscapes_panoptic_{split}"
        found[f"cityscapes_fine_panoptic_{split}"] = partial(open_panoptic, panoptic=panoptic, **where)
    return {name: DatasetEntry(where["truth"], where["images"], open=read) for name, read in found.items()}


CITYSCAPES: dict[str, DatasetEntry] = {**_entries("train"), **_entries("val"), **_entries("test")}
