"""The splits of a data set in any known format, each as a COCO JSON that can be checked."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import DataError
from ..coco_json import PackedPolygons, load_json
from ..formats.coco import CocoFormat, image_bases
from ..formats.opening import open_data, recognise
from ..formats.tree import Tree, split_of
from .report import Report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceSplit:
    """A split of a data set.

    Attributes:
        name: such as "train".
        title: what sentences call it.
        sources: where the annotations of each image of the JSON stand, a file, with a line or an element; none where
            the JSON is the source's own.
    """

    name: str
    title: str
    json_path: Path
    images_folder: Path
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceData:
    """What `find_splits` found: the format's name, the folder that holds everything, and the splits, train first."""

    format: str
    root: Path
    splits: list[SourceSplit]


def find_splits(source: str | Path) -> SourceData:
    """The splits of a data set in any known format, told of in the log.

    A COCO file is taken as it is, with all its faults, where one folder has its images, or where it cannot be read
    otherwise; everything else is read as training reads it.

    Raises:
        DataError: the format is not known, or files of another format than COCO have a fault.
    """
    found, tree = recognise(source)
    own = _coco_files(found.files, tree) if isinstance(found.format, CocoFormat) else {}
    try:
        opened = open_data(source)
    except DataError as fault:
        if not own:
            raise
        logger.warning("%s (The files are checked as they are.)", fault)
        splits = [SourceSplit(name, str(path), path, _likeliest_folder(path, tree)[0]) for name, path in own.items()]
        return SourceData(found.format.name, tree.root, splits)
    for line in opened.summary().splitlines():
        logger.info("%s", line)
    splits = []
    for name, split in opened.splits.items():
        title, sources = str(split.json_path), split.sources
        json_path, folder = split.json_path, split.images_folder
        if sources:
            title = f"{source} ({name})"
            likeliest, has_all = _likeliest_folder(own[name], tree) if name in own else (folder, False)
            if has_all:
                title, sources, json_path, folder = str(own[name]), (), own[name], likeliest
        splits.append(SourceSplit(name, title, json_path, folder, sources))
    return SourceData(opened.format, tree.root, splits)


def _coco_files(files: Sequence[Path], tree: Tree) -> dict[str, Path]:
    """COCO files by their split; by their names where several may be the same one."""
    names = [split_of(path, tree.root) or "train" for path in files]
    if len(set(names)) < len(names):
        names = [os.path.relpath(path, tree.root) for path in files]
    return dict(zip(names, files))


def _likeliest_folder(path: Path, tree: Tree) -> tuple[Path, bool]:
    """The folder that has most of a COCO file's images, and whether it has all."""
    content = load_json(path, PackedPolygons())
    images = content.get("images") if isinstance(content, dict) else None
    entries = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    names = [image["file_name"] for image in entries if isinstance(image.get("file_name"), str)]
    bases = image_bases(path, split_of(path, tree.root) or "train", tree)
    counts = [sum(base / PurePosixPath(name) in tree.images for name in names) for base in bases]
    most = max(counts, default=0)
    return (bases[counts.index(most)] if bases else path.parent), bool(entries) and most == len(entries)


def with_sources(changes: list[dict[str, Any]], report: Report) -> list[dict[str, Any]]:
    """What `--fix` changed, with the place of each in the files that the JSON was made of."""
    if not report.sources:
        return changes
    images = report.images.position
    owners = dict(zip(report.annotations.ids, report.annotations.owner.tolist()))
    positions = {"images": images, "annotations": owners}
    result = []
    for change in changes:
        at = positions.get(change["part"], {}).get(change["id"], -1)
        result.append({**change, "source": report.sources[at]} if at >= 0 else change)
    return result
