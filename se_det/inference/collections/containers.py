"""What holds the images of a collection: names, a list file, a tar shard. Each says what it is, and gives its images.

Work is shared out in units of a container: some lines of a list, or a whole shard.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Protocol

from ...data.listing import image_suffixes
from ...data.tar_members import key_of, tar_members
from ...errors import DataError
from .list_lines import LineReader
from .storage import MAX_BYTES, beside, facts_of, is_url, open_location, read_location

LIST_SUFFIXES = (".txt", ".csv", ".jsonl")
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
MARK = 1000  # lines of a list from one remembered place to the next


@dataclass(frozen=True)
class Entry:
    """An image: what results call it, and how its bytes are had.

    `read` raises OSError or DataError where they cannot be.
    """

    name: str
    read: Callable[[], bytes]
    in_turn: bool = False  # to be read before the next one is asked for, by who asks


@dataclass(frozen=True)
class Unit:
    """A piece of work that one process does.

    Attributes:
        container: what it is of.
        place: where it begins there, as the container counts.
        count: how many images it has at most; 0 is all.
    """

    container: Container
    place: int = 0
    count: int = 0

    def entries(self) -> Iterator[Entry]:
        """Its images, always in the same order.

        Raises:
            DataError: the container breaks off; after the images before.
        """
        return self.container.entries(self.place, self.count)


class Container(Protocol):
    """Some images."""

    location: str

    def identity(self) -> dict[str, Any]:
        """What must be the same when a call is repeated, for JSON."""
        ...

    def units(self, images: int) -> Iterator[Unit]:
        """Its work, in units of at most `images` where it can be begun anywhere."""
        ...

    def entries(self, place: int, count: int) -> Iterator[Entry]:
        """See `Unit`."""
        ...


def is_list(location: str) -> bool:
    """Whether a file of this name is taken for a list of images."""
    return location.lower().endswith(LIST_SUFFIXES)


def is_archive(location: str) -> bool:
    """Whether a file of this name is taken for a tar shard."""
    return location.lower().endswith(ARCHIVE_SUFFIXES)


class Names:
    """Images by their paths or URLs.

    Args:
        names: of the images.
        location: what sentences call all of them.
    """

    def __init__(self, names: Sequence[str], location: str) -> None:
        self.names, self.location = names, location

    def identity(self) -> dict[str, Any]:
        """How many, and a hash of the names."""
        digest = hashlib.sha256("\n".join(self.names).encode("utf-8", "surrogateescape"))
        return {"kind": "images", "name": self.location, "images": len(self.names), "sha256": digest.hexdigest()}

    def units(self, images: int) -> Iterator[Unit]:
        for first in range(0, len(self.names), images):
            yield Unit(self, first, images)

    def entries(self, place: int, count: int) -> Iterator[Entry]:
        for name in self.names[place : place + count]:
            yield Entry(name, partial(read_location, name))


class ListFile:
    """A file with an image's path or URL in each line. It is read once, whole, when it is made.

    Raises:
        DataError: it cannot be read, or does not say which of its columns has the images.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._reader = LineReader(location)
        self._marks: list[tuple[int, int]] = []  # byte at which a line begins, and how many with images are before it
        self._lines = 0
        self._digest = hashlib.sha256()
        with self._open() as file:
            for offset, _ in self._reader.lines(file, self._digest.update):
                if self._lines % MARK == 0:
                    self._marks.append((offset, self._lines))
                self._lines += 1

    def identity(self) -> dict[str, Any]:
        """How many images, and a hash of the file."""
        return {"kind": "list", "name": self.location, "images": self._lines, "sha256": self._digest.hexdigest()}

    def units(self, images: int) -> Iterator[Unit]:
        for first in range(0, self._lines, images):
            yield Unit(self, first, images)

    def entries(self, place: int, count: int) -> Iterator[Entry]:
        offset, line = self._marks[place // MARK] if self._marks else (0, 0)
        with self._open() as file:
            file.seek(offset)
            for at, (_, text) in enumerate(self._reader.lines(file), line):
                if at >= place + count:
                    return
                if at >= place:
                    yield self._entry(at, text)

    def _entry(self, at: int, line: bytes) -> Entry:
        try:
            name = self._reader.name(line)
        except DataError as error:
            return Entry(f"{self.location}, entry {at + 1}", partial(_refuse, error))
        return Entry(name, partial(read_location, beside(self.location, name)))

    def _open(self) -> IO[bytes]:
        try:
            return open_location(self.location)
        except (OSError, ValueError) as error:
            raise DataError(
                f"The list {self.location} cannot be read: {getattr(error, 'strerror', None) or error}."
            ) from error


class Archive:
    """A tar file, packed or not, whose members with an image's ending are images; WebDataset's shards are such.

    A name in the results is fsspec's of the member, `tar://0001.jpg::shards/0.tar`.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._facts = facts_of(location)

    def identity(self) -> dict[str, Any]:
        """Its size and when it was changed."""
        return {"kind": "shard", "name": self.location, "size": self._facts.size, "version": self._facts.version}

    def units(self, images: int) -> Iterator[Unit]:
        yield Unit(self)

    def entries(self, place: int, count: int) -> Iterator[Entry]:
        seen: set[str] = set()
        try:
            file = open_location(self.location)
        except OSError as error:
            raise DataError(f"The shard {self.location} cannot be read: {error.strerror or error}.") from error
        length = None if is_url(self.location) else self._facts.size
        packed = not self.location.lower().endswith(".tar")
        with file:
            members = tar_members(
                file, self.location, _most_bytes, length=None if packed else length, compression="*" if packed else ""
            )
            for member, tar in members:
                if member.name in seen:
                    raise DataError(f"{self.location}: {member.name} is there twice.")
                seen.add(member.name)
                name = f"tar://{member.name}::{self.location}"
                yield Entry(name, partial(_read_member, tar, member), in_turn=True)


def _refuse(error: DataError) -> bytes:
    raise error


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    data = tar.extractfile(member).read()
    if len(data) != member.size:
        raise DataError("the shard is cut short")
    return data


def _most_bytes(name: str) -> int:
    return MAX_BYTES if key_of(name)[1].lower().endswith(image_suffixes()) else 0
