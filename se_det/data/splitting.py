"""A validation split where there is none: near-duplicates on one side, every class on both in its proportion."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import atomic_write
from .coco import CocoDataset, read_coco
from .near_duplicates import group_images

SHARE = 0.2  # of the images that become the validation split
MAX_COMPARED = 30_000  # images whose pixels are compared; beyond it only names group them

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The two COCO files of a split, and what there is to say of it."""

    source: Path  # what was split
    train: Path
    val: Path
    train_images: int
    val_images: int
    grouped: int  # images that are a near-duplicate of an earlier one
    alike: tuple[tuple[str, ...], ...] = ()  # the files of each group of near-duplicates
    warning: str = ""


def make_split(json_path: Path, images_folder: Path, folder: Path, *, share: float = SHARE) -> Split:
    """Split a data set into `train.json` and `val.json` in `folder`: the same for the same files.

    Args:
        json_path, images_folder: as of `read_coco`.
        folder: where the two files go; it is made.
        share: of the images that are to be held out.

    Raises:
        DataError: there are fewer than two images.
    """
    dataset = read_coco(json_path, images_folder)
    count = len(dataset)
    if count < 2:
        raise DataError(f"{json_path} has {count} image: with no other there is nothing to hold out. Add images.")
    paths = [dataset.image(i).path for i in range(count)]
    if count > MAX_COMPARED:
        logger.warning(
            "%s has %d images, of which more than %d are not compared: near-duplicates may be on both sides of the "
            "split. Give a validation split.", json_path, count, MAX_COMPARED,
        )  # fmt: skip
        groups = np.arange(count)
    else:
        groups = group_images(paths)
    counts = _counts(dataset)
    held_out = choose_held_out(groups, counts, dataset.file_names, share=share)
    if not counts[held_out].any():  # every class is in one image only: then at least objects are held out
        held_out = choose_held_out(groups, counts.sum(1, keepdims=True), dataset.file_names, share=share)
    warning = ""
    if not 0.25 * share * count <= held_out.sum() <= count / 2:
        # Of one film there is no other: its last part is at least not what was trained on.
        order = np.argsort(np.array(dataset.file_names))
        held_out = np.zeros(count, dtype=bool)
        held_out[order[-max(round(share * count), 1) :]] = True
        warning = (
            "most images are near-duplicates of each other, as the frames of one film are: the last by name are held "
            "out, and AP on them says little of other films"
        )
    tree = json.loads(Path(json_path).read_text(encoding="utf-8"))
    images = [tree["images"][at] for at in _order(tree, dataset)]
    for name, chosen in (("val", held_out), ("train", ~held_out)):
        _write(folder / f"{name}.json", tree, [image for image, kept in zip(images, chosen) if kept])
    return Split(
        source=Path(json_path),
        train=folder / "train.json",
        val=folder / "val.json",
        train_images=int((~held_out).sum()),
        val_images=int(held_out.sum()),
        grouped=int((groups != np.arange(count)).sum()),
        alike=_groups_of_several(groups, dataset.file_names),
        warning=warning,
    )


def choose_held_out(groups: np.ndarray, counts: np.ndarray, names: Sequence[str], *, share: float) -> np.ndarray:
    """Which images to hold out, by iterative stratification (Sechidis et al., 2011) of groups.

    The class that has the fewest groups left is dealt with first; each of its groups goes to the side that lacks most
    of the class. A class with a single group is trained on.

    Args:
        groups: int (n,), the group of each image.
        counts: (n, k) objects of each class in each image.
        names: of the files, which break ties: the order of the images does not matter.
        share: of images and objects to hold out.

    Returns:
        bool (n,).
    """
    labels, member = np.unique(groups, return_inverse=True)
    table = np.zeros((len(labels), counts.shape[1] + 1))
    np.add.at(table, member, np.column_stack([counts, np.ones(len(groups))]))  # the last column counts images
    keys = [hashlib.sha256(names[np.flatnonzero(member == g)[0]].encode()).digest() for g in range(len(labels))]
    waiting = sorted(range(len(labels)), key=lambda g: keys[g])
    want = np.stack([table.sum(0) * (1 - share), table.sum(0) * share])  # of the training and the held out side
    side = np.zeros(len(labels), dtype=int)
    capacity = 1.5 * share * len(groups) + 1

    def place(group: int, to: int) -> None:
        side[group] = to
        want[to] -= table[group]
        waiting.remove(group)

    while waiting:
        present = (table[waiting] > 0).sum(0)[:-1]
        left = np.flatnonzero(present)
        column = int(left[np.argmin(present[left])]) if len(left) else -1
        of_class = [g for g in waiting if table[g, column] > 0]
        alone = column >= 0 and (table[:, column] > 0).sum() == 1
        for group in of_class:
            # What each side still lacks of the class, in parts of what it is to have.
            lacks = want[:, column] / np.array([1 - share, share])
            if lacks[0] == lacks[1]:
                lacks = want[:, -1] / np.array([1 - share, share])
            size = table[group, -1]
            held = (table[side == 1, -1]).sum()
            place(group, int(lacks[1] > lacks[0] and not alone and held + size <= capacity))
    return side[member] == 1


def _groups_of_several(groups: np.ndarray, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    first, sizes = np.unique(groups, return_counts=True)
    return tuple(tuple(names[at] for at in np.flatnonzero(groups == group)) for group in first[sizes > 1])


def _counts(dataset: CocoDataset) -> np.ndarray:
    counts = np.zeros((len(dataset), len(dataset.category_ids)))
    for i in range(len(dataset)):
        classes = dataset.annotations(i, crowds=False, masks=False).classes
        np.add.at(counts[i], classes, 1)
    return counts


def _order(tree: dict[str, Any], dataset: CocoDataset) -> list[int]:
    """Where each image of the data set stands in the JSON."""
    at = {image["file_name"]: position for position, image in enumerate(tree["images"])}
    return [at[name] for name in dataset.file_names]


def _write(path: Path, tree: dict[str, Any], images: list[dict[str, Any]]) -> None:
    ids = {image["id"] for image in images}
    kept = [annotation for annotation in tree.get("annotations", []) if annotation["image_id"] in ids]
    text = json.dumps({**tree, "images": images, "annotations": kept})
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write(text.encode()))
