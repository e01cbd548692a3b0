"""A data set of any format written anew as COCO: a JSON per split, and its images by reference, link or copy."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ...errors import CheckpointError, DataError
from ...files import is_within
from .building import place_images, write_split
from .opening import OpenedData, OpenedSplit, build, describe, recognise_and_read

IMAGES = ("reference", "link", "copy")


def import_data(source: str | os.PathLike, out: str | os.PathLike, *, images: str = "reference") -> OpenedData:
    """Read `source` and write `out`/annotations/instances_SPLIT.json, with images in `out`/SPLIT unless they stay where
    they are. `out` is whole or absent.

    Args:
        images: "reference" leaves them in place, "link" makes hard links, "copy" copies.

    Raises:
        DataError: as `open_data`, or `out` is there already or lies within the source.
        CheckpointError: `out` cannot be written, or no hard link can be made there.
    """
    target = Path(os.path.abspath(out))
    found, reading, tree = recognise_and_read(source)
    _check_target(target, tree.root)
    reading.sound = {}
    built, categories = build(found, reading, tree)
    splits = {}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:50]}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise CheckpointError(f"{out} could not be written: {error.strerror or error}. Give another folder.") from error
    try:
        temporary.chmod(0o777 & ~_umask())
        (temporary / "annotations").mkdir()
        for name, split in built.items():
            folder, names = place_images(split.paths, tree.root)
            place = Path("annotations") / f"instances_{name}.json"
            if images != "reference":
                for path, relative in zip(split.paths, names):
                    _put(path, temporary / name / relative, images)
                folder = target / name
            with open(temporary / place, "wb") as file:
                write_split(file, split, categories, names)
                file.flush()
                os.fsync(file.fileno())
            splits[name] = OpenedSplit(target / place, folder, len(split.images), len(split.annotations))
        if target.is_dir():  # and empty; Windows puts nothing in its place
            target.rmdir()
        os.replace(temporary, target)
    except OSError as error:
        raise CheckpointError(f"{out} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return describe(source, found, reading, splits, categories)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check_target(target: Path, root: Path) -> None:
    real, source = os.path.realpath(target), os.path.realpath(root)
    if is_within(real, source) or is_within(source, real):
        raise DataError(f"{target} and the data set's folder {root} lie in one another: give a folder apart from it.")
    if os.path.lexists(target) and (os.path.islink(target) or not (os.path.isdir(target) and not os.listdir(target))):
        raise DataError(f"{target} is there already: nothing is written over. Give a new folder.")


def _put(path: Path, place: Path, how: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        shutil.copyfile(path, place)
        return
    try:
        os.link(os.path.realpath(path), place)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be linked to {place}: {error.strerror or error}. Hard links stay on one disk: give "
            "--images copy, or reference."
        ) from error
