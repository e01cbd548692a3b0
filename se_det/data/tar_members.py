"""The files in a tar archive that a program can take without harm, one after another, and whether it is whole."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO

from ..errors import DataError
from .listing import is_hidden

BLOCK = 512  # bytes; an archive ends with zeros


def key_of(name: str) -> tuple[str, str]:
    """WebDataset's: what stands before the first dot of the last part of a name, and what is after it."""
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), f"{dot}{suffix}"


def tar_members(
    file: IO[bytes],
    path: object,
    wanted: Callable[[str], int],
    *,
    length: int | None = None,
    compression: str = "",
) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The wanted members in their order, each with the archive, whose `extractfile` reads it while its turn lasts.

    Nothing is unpacked to disk. Folders and hidden files are left out.

    Args:
        file: which can be sought in.
        path: what sentences call the archive.
        wanted: the most bytes that a member of this name may have; 0 leaves it out.
        length: of the archive, where it is known: no member goes beyond it.
        compression: "" for a plain tar, "*" for one that may be compressed.

    Raises:
        DataError: naming the archive and the member: links, devices and sparse members, names that lead out, members
            that are too large, an archive that is damaged or cut short; after the members before.
    """
    try:
        with tarfile.open(fileobj=file, mode=f"r:{compression}") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # which would else keep every header
                if member.isdir() or any(map(is_hidden, PurePosixPath(member.name).parts)):
                    continue
                limit = wanted(member.name)
                if limit:
                    _check_member(member, path, limit, length)
                    yield member, tar
            end = tar.offset
            tar.fileobj.seek(end)
            whole = tar.fileobj.read(BLOCK) == bytes(BLOCK)
    except tarfile.ReadError as error:
        raise DataError(f"The shard {path} is damaged or no plain tar file: {error}.") from error
    except (OSError, EOFError, tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(f"The shard {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not whole:  # tarfile stops without a word at a header that it cannot read
        raise DataError(f"The shard {path} is damaged or cut short: it goes on at byte {end}, and not as a tar file.")


def _check_member(member: tarfile.TarInfo, path: object, limit: int, length: int | None) -> None:
    # A tar cannot be trusted to be one that a friend has made.
    if not member.isreg() or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "sparse" if member.issparse() else "no file"
        raise DataError(f"{path}: the member {member.name} is {kind}: shards are made of plain files only.")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise DataError(f"{path}: the name of the member {member.name} leads out of the shard: rename it.")
    if member.size > limit:
        raise DataError(f"{path}: {member.name} has {member.size} bytes: that is too much, take it out.")
    if length is not None and member.offset_data + member.size > length:
        raise DataError(f"The shard {path} is cut short: {member.name} is not whole.")
