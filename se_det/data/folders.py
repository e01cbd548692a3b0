"""Where a data set's images lie: below its folder, links included, and all of them there."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DataError


def check_folders(json_path: Path, folder: Path, ids: Sequence[int | str], names: Sequence[str]) -> None:
    """Refuse file names that a link in their path leads out of `folder` (which itself may be a link).

    Raises:
        DataError: naming the image.
    """
    seen: set[str] = set()
    for at, name in enumerate(names):
        parent = os.path.dirname(name)
        if parent not in seen:
            seen.add(parent)
            if parent and not _inside(folder / parent, folder):
                raise DataError(
                    f"{json_path}: image {ids[at]!r} has the file_name {name!r}, whose folder is a link out of the "
                    f"image folder, to {os.path.realpath(folder / parent)}. {_REMEDY}"
                )


def check_files(json_path: Path, folder: Path, names: Iterable[str]) -> None:
    """Refuse a data set whose files are not all there. Each folder is listed once; no file is asked for by itself.

    Raises:
        DataError: naming the first files missing, or one that is a link out of `folder`.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for name in names:
        parent, leaf = os.path.split(name)
        wanted[parent].add(leaf)
    missing: list[str] = []
    total = 0
    for parent, leaves in wanted.items():
        total += len(leaves)
        found = _files(json_path, folder, parent, leaves)
        missing += [os.path.join(parent, leaf) for leaf in leaves - found]
    if missing:
        first = ", ".join(sorted(missing)[:3])
        raise DataError(
            f"{len(missing)} of the {total} image files that {json_path} names are not in {folder}: {first}"
            f"{', ...' if len(missing) > 3 else ''}. Give the folder that the file names are relative to, or add the "
            "files."
        )


def _files(json_path: Path, folder: Path, parent: str, wanted: set[str]) -> set[str]:
    found = set()
    try:
        with os.scandir(folder / parent) as entries:
            for entry in entries:
                if entry.name not in wanted or not entry.is_file():
                    continue
                if entry.is_symlink() and not _inside(Path(entry.path), folder):
                    raise DataError(
                        f"{json_path} names the image file {os.path.join(parent, entry.name)!r}, which is a link out "
                        f"of the image folder, to {os.path.realpath(entry.path)}. {_REMEDY}"
                    )
                found.add(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise DataError(f"The folder of images {folder / parent} cannot be read: {error.strerror}.") from error
    return found


def _inside(path: Path, folder: Path) -> bool:
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(path)]) == root


_REMEDY = "Only files below that folder are read: copy or hard-link them there, or give the folder that holds them."
