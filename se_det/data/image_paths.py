"""Where a data set's images lie: all of them below its folder, or where a link there leads."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ..errors import DataError
from .listing import is_image_name


def check_files(json_path: Path, folder: Path, names: Iterable[str]) -> None:
    """Refuse a data set whose files are not all there. Each folder is listed once; no file is asked for by itself.

    Raises:
        DataError: naming the first files missing, and what is there instead.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for name in names:
        parent, leaf = os.path.split(name)
        wanted[parent].add(leaf)
    missing: list[str] = []
    total = 0
    for parent, leaves in wanted.items():
        total += len(leaves)
        missing += [os.path.join(parent, leaf) for leaf in leaves - _files(folder / parent, leaves)]
    if not missing:
        return
    near = NearMisses(folder)
    shown, alike = [], 0
    for name in sorted(missing)[:3]:
        found = near.of(name)
        alike += found is not None
        shown.append(f"{name!a} ({found!a} is there)" if found else dangling(folder / name, name))
    remedy = (
        "Write the names as they are on the disk (`se-det check-data --fix OUT` does), or rename the files."
        if alike
        else "Give the folder that the file names are relative to, or add the files."
    )
    raise DataError(
        f"{len(missing)} of the {total} image files that {json_path} names are not in {folder}: {', '.join(shown)}"
        f"{', ...' if len(missing) > 3 else ''}. {remedy}"
    )


def dangling(path: Path, name: str) -> str:
    """A missing file's name, with where it leads to if it is a link."""
    shown = name if name.isascii() and name.isprintable() else ascii(name)
    return f"{shown} (a link to {os.path.realpath(path)}, which is not there)" if os.path.islink(path) else shown


def _files(folder: Path, wanted: set[str]) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.name in wanted and entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise DataError(f"The folder of images {folder} cannot be read: {error.strerror}.") from error


class NearMisses:
    """Files of a folder that a name which is not there most likely means: another case, Unicode form or image ending,
    spaces at its ends, `%20` for a space, or folders before it that the disk does not have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: dict[str, dict[str, list[str]]] = {}

    def of(self, name: str) -> str | None:
        """The one file that is nearest to `name`, relative to the folder; None without one, or where several are."""
        parts = PurePosixPath(name).parts
        if parts[:1] == ("/",):
            parts = parts[1:]
        for start in range(len(parts)):  # with fewer and fewer of the folders before it
            found = self._walk(parts[start:])
            if found is not None:
                return found
        return None

    def _walk(self, parts: tuple[str, ...]) -> str | None:
        place = ""
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            found = self._entry(place, part, last)
            if found is None:
                return None
            place = f"{place}/{found}" if place else found
        full = self._folder / place
        return place if place and os.path.isfile(full) else None

    def _entry(self, place: str, part: str, last: bool) -> str | None:
        alike = self._names(place).get(_plain(part), [])
        if part in alike:
            return part
        if not alike and last and is_image_name(part.strip()):
            stem = _plain(part).rpartition(".")[0]
            alike = [
                name
                for plain, names in self._names(place).items()
                if plain.rpartition(".")[0] == stem
                for name in names
                if is_image_name(name)
            ]
        return alike[0] if len(alike) == 1 else None

    def _names(self, place: str) -> dict[str, list[str]]:
        if place not in self._listed:
            names: dict[str, list[str]] = defaultdict(list)
            try:
                for entry in sorted(os.listdir(self._folder / place)):
                    names[_plain(entry)].append(entry)
            except OSError:
                pass
            self._listed[place] = dict(names)
        return self._listed[place]


def _plain(name: str) -> str:
    """What names that people take for the same have in common."""
    return unicodedata.normalize("NFC", unquote(name).strip()).casefold()
