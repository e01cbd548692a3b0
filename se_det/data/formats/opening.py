"""From a folder or file that a labelling tool wrote to data sets: what format it has, and its splits as COCO."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import IO

from ...errors import CheckpointError, DataError
from ...plugins import load_installed_plugins
from ...registry import Registry
from ...weights.download import cache_folder
from ..coco import CocoDataset, read_coco
from .building import BuiltSplit, build_splits, place_images, write_split
from .coco import CocoFormat
from .csv_boxes import CsvFormat
from .cvat import CvatFormat
from .labelme import LabelMeFormat
from .open_images import OpenImagesFormat
from .others import refuse_others
from .protocol import Category, Found, Reading
from .tree import Tree, extension, keeps_annotations
from .voc import VocFormat
from .yolo import YoloFormat

# Readers by name, see `protocol.Format`; all are asked, in this order, and one that is registered outside comes last.
FORMATS = Registry("data format")
for _format in (
    CocoFormat(), YoloFormat(), VocFormat(), LabelMeFormat(), CvatFormat(), OpenImagesFormat(), CsvFormat(),
):  # fmt: skip
    FORMATS.register(_format, name=_format.name)
ENDINGS = ("yaml", "yml", "json", "csv", "tsv", "txt", "xml", "data")
_MASKS = frozenset(("segmentationobject", "segmentationclass", "masks", "mask"))
ORDER = ("train", "val", "test")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedSplit:
    """A split as the rest of the program reads it: a COCO JSON, and the folder that its file names start from.

    Attributes:
        sources: where the annotations of each image of the JSON stand, a file, with a line or an element; none where
            the JSON is the source's own.
    """

    json_path: Path
    images_folder: Path
    images: int
    annotations: int
    sources: tuple[str, ...] = ()

    def read(self) -> CocoDataset:
        """Read it as `read_coco` does."""
        return read_coco(self.json_path, self.images_folder)


@dataclass(frozen=True)
class OpenedData:
    """What was recognised, and its splits.

    Attributes:
        format: the format's name.
        evidence: what it was recognised by.
        splits: "train", "val", "test" first where they are there, in this order.
        categories: the classes.
        skipped: how many shapes or pictures were left out, by reason.
        notes: other things worth a line.
    """

    source: Path
    format: str
    evidence: str
    splits: dict[str, OpenedSplit]
    categories: tuple[str, ...]
    skipped: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Some lines that say what was read."""
        lines = [f"{self.source}: {self.format} ({self.evidence})"]
        for name, split in self.splits.items():
            lines.append(f"  {name}: {split.images} images, {split.annotations} objects")
        shown = ", ".join(self.categories[:20]) + (", ..." if len(self.categories) > 20 else "")
        lines.append(f"  {len(self.categories)} classes: {shown}")
        lines += [f"  left out: {count} {reason}" for reason, count in sorted(self.skipped.items())]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def open_data(source: str | os.PathLike) -> OpenedData:
    """Recognise the annotation format of `source` and read it. Nothing is written into it.

    Each split becomes a COCO JSON in the cache (`SE_DET_CACHE`, else `~/.cache/se_det`), named by its content.

    Args:
        source: a folder, or one of its annotation files, which chooses among several formats.

    Raises:
        DataError: it is not there, of no known format or of several, or has a fault; a sentence names the file, the
            line or element, the value, and what to do.
    """
    found, reading, tree = recognise_and_read(source)
    if reading.sound:
        splits = {name: OpenedSplit(*reading.sound[name]) for name in sorted(reading.sound, key=_place)}
        return describe(source, found, reading, splits, reading.categories or ())
    built, categories = build(found, reading, tree)
    splits = {}
    for name, split in built.items():
        folder, names = place_images(split.paths, tree.root)
        path = _in_cache(split, categories, names)
        splits[name] = OpenedSplit(path, folder, len(split.images), len(split.annotations), tuple(split.sources))
    return describe(source, found, reading, splits, categories)


def describe(
    source: str | os.PathLike, found: Found, reading: Reading, splits: dict[str, OpenedSplit],
    categories: Sequence[Category],
) -> OpenedData:  # fmt: skip
    """What was read, for its user."""
    return OpenedData(
        source=Path(source),
        format=found.format.name,
        evidence=found.evidence,
        splits=splits,
        categories=tuple(category.name for category in categories),
        skipped=Counter({reason: count for reason, count in reading.skipped.items() if count}),
        notes=tuple(dict.fromkeys(reading.notes)),
    )


def recognise_and_read(source: str | os.PathLike) -> tuple[Found, Reading, Tree]:
    """The format of `source`, and its pictures, not gone through yet.

    Raises:
        DataError: as `open_data`.
    """
    found, tree = recognise(source)
    return found, found.format.read(tree, found), tree


def recognise(source: str | os.PathLike) -> tuple[Found, Tree]:
    """The one format that `source` has.

    Raises:
        DataError: it has none, with what was looked for and what was found, or several, with how to choose.
    """
    source = Path(os.path.abspath(source))
    if not source.exists():
        raise DataError(f"There is no file or folder {source}: correct the path.")
    if source.is_file() and extension(source.name) not in ENDINGS:
        unzip = " Unpack it and give the folder." if zipfile.is_zipfile(source) or _is_archive(source) else ""
        raise DataError(
            f"{source} is no annotation file that is read (its name ends in none of "
            f"{', '.join('.' + end for end in ENDINGS)}).{unzip or ' Give the folder of the data set.'}"
        )
    for tree in _trees(source):
        candidates = [found for _, format in FORMATS if (found := format.recognise(tree)) is not None]
        if source != tree.root:
            candidates = [found for found in candidates if _chooses(source, found)] or candidates
        if len(candidates) == 1:
            return candidates[0], tree
        if candidates:
            listed = "; ".join(
                f"{found.format.name} ({found.evidence}; give {found.files[0]} for it)" for found in candidates
            )
            raise DataError(
                f"{source} has annotations of {len(candidates)} formats: {listed}. Choose one by giving its file or "
                "folder in place of the folder."
            )
        known = len(FORMATS.names())
        load_installed_plugins()
        if len(FORMATS.names()) > known:
            return recognise(source)
        refuse_others(tree)
    raise DataError(_nothing(source, tree))


def _trees(source: Path) -> list[Tree]:
    """The folder to look at; where it has annotations but no image, with the images of the folder above it."""
    folder = source if source.is_dir() else source.parent
    tree = Tree(folder, source)
    if len(tree.images) or not any(tree.of(*ENDINGS)):
        return [tree]
    for above in (folder.parent, folder.parent.parent):
        twice = above != folder.parent and not (keeps_annotations(folder) and keeps_annotations(folder.parent))
        if twice or len(above.parts) < 3 or above == Path.home():
            break
        wider = Tree(above, source, annotations=folder)
        if len(wider.images):
            return [wider]
    return [tree]


def _chooses(source: Path, found: Found) -> bool:
    """Whether a file or folder given as SRC is one of a format's."""
    return any(file == source or file.is_relative_to(source) for file in found.files)


def _nothing(source: Path, tree: Tree) -> str:
    endings = Counter(extension(path.name) or "no ending" for path in tree.files)
    listed = ", ".join(f"{count} .{end}" for end, count in endings.most_common(8)) or "no file"
    sought = "; ".join(f"{format.name}: {format.looks_for}" for _, format in FORMATS)
    archives = [path.name for path in tree.files if _is_archive(path)]
    unpack = f" Unpack {archives[0]} first?" if archives else ""
    return f"No annotations of a known format are in {source}, which has {listed}. Looked for: {sought}.{unpack}"


def _is_archive(path: Path) -> bool:
    return extension(path.name) in ("zip", "tar", "gz", "tgz", "7z", "rar", "bz2", "xz")


def build(found: Found, reading: Reading, tree: Tree) -> tuple[dict[str, BuiltSplit], list[Category]]:
    """All pictures of all splits, "train", "val" and "test" first, and the classes.

    Raises:
        DataError: no image is there, no object has a class, or one of the pictures has a fault.
    """
    built, categories = build_splits(reading, tree.sizes)
    built = {name: split for name, split in built.items() if split.images}
    if not built:
        raise DataError(
            f"{tree.chosen} has annotations ({found.format.name}: {found.evidence}), but none of an image that is "
            f"there{_reasons(reading)}. Put the images beside them."
        )
    if not categories:
        raise DataError(
            f"{tree.chosen} ({found.format.name}: {found.evidence}) has no object of a class{_reasons(reading)}: there "
            "is nothing to learn."
        )
    _note_what_is_odd(built, categories, reading, tree)
    return {name: built[name] for name in sorted(built, key=_place)}, categories


def _note_what_is_odd(built: dict[str, BuiltSplit], categories: list[Category], reading: Reading, tree: Tree) -> None:
    """Say what no reader would refuse and few people want."""
    used = {path for split in built.values() for path in split.paths}
    unused = [
        path for path in tree.images.below(tree.chosen)
        if path not in used and not _MASKS.intersection(part.lower() for part in path.relative_to(tree.root).parts)
    ]  # fmt: skip
    if unused and tree.chosen.is_dir():
        shown = os.path.relpath(unused[0], tree.root)
        reading.skipped[f"images that no annotation belongs to, such as {shown}"] += len(unused)
    by_letters: dict[str, list[str]] = defaultdict(list)
    for category in categories:
        by_letters[" ".join(category.name.casefold().replace("_", " ").replace("-", " ").split())].append(category.name)
    for alike in by_letters.values():
        if len(alike) > 1:
            reading.notes.append(f"{' and '.join(map(repr, alike))} are different classes")
    for one, other in combinations(sorted(built, key=_place), 2):
        if both := len(set(built[one].paths) & set(built[other].paths)):
            reading.notes.append(f"{both} images are in both {one} and {other}: what is measured there means little")


def _place(split: str) -> tuple[int, str]:
    return (ORDER.index(split) if split in ORDER else len(ORDER), split)


def _reasons(reading: Reading) -> str:
    listed = ", ".join(f"{count} {reason}" for reason, count in reading.skipped.items() if count)
    return f" (left out: {listed})" if listed else ""


def _in_cache(split: BuiltSplit, categories: list[Category], names: list[str]) -> Path:
    folder = cache_folder() / "data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
        try:
            with os.fdopen(handle, "w+b") as file:
                write_split(file, split, categories, names)
                file.flush()
                file.seek(0)
                digest = _sha256(file)
            place = folder / f"{digest[:32]}.json"
            os.replace(temporary, place)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    except OSError as error:
        raise CheckpointError(
            f"The annotations could not be kept in {folder}: {error.strerror or error}. Set SE_DET_CACHE to a folder "
            "that can be written."
        ) from error
    return place


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
