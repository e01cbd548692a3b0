"""Which way of storing labelled images a path is of."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import DataError, suggestion
from .dataset import ClassificationDataset
from .image_folder import ImageFolder
from .image_list import ImageList
from .shards import ShardDataset


def open_image_dataset(
    path: str, *, root: str = "", classes: Sequence[str] | None = None, num_classes: int = 0
) -> ClassificationDataset:
    """The images at `path`: a folder of class folders; a text list; a tar file, a folder of them or a pattern such as
    `shards/train-{000..099}.tar` or `shards/train-*.tar`.

    Args:
        root: what the names in a list are relative to; "" is the list's folder.
        classes: names of the classes, where they are known; labels are then theirs.
        num_classes: how many classes there are; 0 takes what the images have.

    Raises:
        DataError: there is nothing there, or it cannot be used; the sentence names file and line.
    """
    if not path:
        raise DataError("There is no path to images: give --train_data_path and --test_data_path.")
    place = Path(path).expanduser()
    shards = _shard_files(place)
    if shards:
        _check_no_root(root, path)
        return ShardDataset(shards, source=path, classes=classes, num_classes=num_classes)
    if place.is_dir():
        _check_no_root(root, path)
        return ImageFolder(place, classes=classes, num_classes=num_classes)
    if place.is_file():
        return ImageList(place, root=Path(root).expanduser() if root else place.parent, classes=classes,
                         num_classes=num_classes)  # fmt: skip
    near = suggestion(place.name, [p.name for p in place.parent.iterdir()]) if place.parent.is_dir() else ""
    raise DataError(
        f"There is nothing at {path}: give a folder of class folders, a list of `imagename label` lines, or tar shards."
        f"{near}"
    )


def _shard_files(path: Path) -> list[Path]:
    text = str(path)
    if path.is_dir():
        found = sorted(path.glob("*.tar"))
        packed = [p for p in path.iterdir() if p.name.endswith((".tar.gz", ".tgz"))]
        if packed and not found:
            _refuse_packed(packed[0])
        return found
    if text.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        _refuse_packed(path)
    if not text.endswith(".tar"):
        return []
    span = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if span:
        first, last = span[1], span[2]
        texts = [
            f"{text[: span.start()]}{n:0{len(first)}d}{text[span.end() :]}" for n in range(int(first), int(last) + 1)
        ]
    else:
        texts = sorted(glob.glob(text)) or [text]
    missing = next((t for t in texts if not Path(t).is_file()), None)
    if missing or not texts:
        raise DataError(f"There is no shard {missing or text}.")
    return [Path(t) for t in texts]


def _refuse_packed(path: Path) -> None:
    raise DataError(f"{path} is compressed, so its images cannot be read one by one: unpack it to a plain .tar first.")


def _check_no_root(root: str, path: str) -> None:
    if root:
        raise DataError(
            f"{path} is no list, so no root ({root}) goes with it: leave DATASETS.TRAIN_ROOT/TEST_ROOT out."
        )
