"""Images with labels of their pixels and without instances, as a data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import DataError
from .coco_dataset import CocoDataset
from .formats.sizes import ImageSizes
from .listing import list_files
from .pixel_labels import PixelLabels
from .string_array import StringArray

logger = logging.getLogger(__name__)


def read_labelled_images(
    images_folder: Path, labels: PixelLabels, *, file_names: Sequence[str] | None = None
) -> CocoDataset:
    """The images of a folder that have labels; an image's id is its name without the ending.

    Args:
        file_names: which; None takes all below the folder, and logs how many have no labels.

    Raises:
        DataError: a folder is not there, no image has labels, two have one name, or an image cannot be read.
    """
    for folder, what in ((images_folder, "images"), (labels.folder, "labels")):
        if not folder.is_dir():
            raise DataError(f"The folder of {what} {folder} is not there: correct the path.")
    if file_names is None:
        found = [path.as_posix() for path in list_files(images_folder).files]
        there = {str(path) for path in list_files(labels.folder, lambda name: name.endswith(".png")).files}
        file_names = [name for name in found if os.path.relpath(labels.path(name), labels.folder) in there]
        left_out = len(found) - len(file_names)
        if not file_names:
            raise DataError(
                f"None of the {len(found)} images in {images_folder} has labels in {labels.folder} ({len(there)} "
                "PNGs): an image and its labels have the same name, labels/a.png for images/a.jpg."
            )
        if left_out:
            logger.warning(
                "%d of %d images in %s have no labels in %s and are left out.",
                left_out, len(found), images_folder, labels.folder,
            )  # fmt: skip
    sizes = ImageSizes(images_folder)
    sizes.load(images_folder / name for name in file_names)
    shown = [sizes[images_folder / name].shown for name in file_names]
    ids = [os.path.splitext(name)[0] for name in file_names]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise DataError(f"{images_folder} has two images called {twice!r}, which differ in their endings: rename one.")
    nothing = torch.zeros(0, dtype=torch.int64)
    logger.info("%s: %d images, %d classes of pixels.", labels.folder, len(ids), len(labels.names))
    return CocoDataset(
        json_path=labels.folder,
        images_folder=images_folder,
        category_ids=(),
        category_names=(),
        image_ids=StringArray(ids),
        file_names=StringArray(list(file_names)),
        columns={
            "index": torch.arange(len(ids)),
            "sizes": torch.tensor([(height, width) for width, height in shown], dtype=torch.int64),
            "first": torch.zeros(len(ids) + 1, dtype=torch.int64),
            "boxes": torch.zeros(0, 4),
            "classes": nothing,
            "crowd": nothing.bool(),
            "areas": nothing.double(),
            "polygon_range": torch.zeros(0, 2, dtype=torch.int64),
            "polygon_start": torch.zeros(1, dtype=torch.int64),
            "vertices": torch.zeros(0, 2, dtype=torch.float64),
            "runs_range": torch.zeros(0, 2, dtype=torch.int64),
            "runs": nothing.int(),
        },
        pixel_labels=labels,
    )
