"""Files of this machine and behind URLs. URLs are fsspec's (s3://, gs://, https://, memory://), imported for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from ...errors import ConfigError, DataError
from ...files import open_regular_file

T = TypeVar("T")
MAX_BYTES = 256 * 2**20  # of one encoded image; a larger one is no photo
PAUSES = (0.5, 2.0)  # seconds before a request is made again
VERSIONS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")
ITS_OWN_FAULT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError)


class StorageError(DataError):
    """A file that may well be there, and that could not be fetched."""


@dataclass(frozen=True)
class Facts:
    """What tells a file from another at its place."""

    size: int | None
    version: str


def is_url(text: str) -> bool:
    """Whether fsspec opens it, rather than the machine."""
    return "://" in text


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it.

    Raises:
        ConfigError: fsspec, or the package that it needs for this scheme, is not installed; or nobody knows the scheme.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ConfigError(f"{url} is a URL, and the package fsspec that opens these is not installed ({error}): "
                          "pip install 'se_det[cloud]'.") from error  # fmt: skip
    try:
        return url_to_fs(url)
    except ImportError as error:
        raise ConfigError(
            f"{url} cannot be opened: {error}. pip install 'se_det[cloud]' has s3, gs and http."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{url} cannot be opened: {error}.") from error


def open_location(location: str) -> IO[bytes]:
    """A file to read and to seek in.

    Raises:
        OSError: it is not there, or cannot be opened.
        StorageError: a URL that does not answer.
    """
    if not is_url(location):
        return open_regular_file(location)
    fs, path = filesystem(location)
    return _again(lambda: fs.open(path, "rb"), location)


def read_location(location: str) -> bytes:
    """The bytes of an image's file.

    Raises:
        OSError: it is not there, or is no file.
        StorageError: a URL that does not answer.
        DataError: it is far too large for an image.
    """
    if is_url(location):
        fs, path = filesystem(location)
        data = _again(lambda: fs.cat_file(path, start=0, end=MAX_BYTES + 1), location)
    else:
        with open_regular_file(location) as file:
            # No more than there is: memory for the most would be asked for first, which takes longer than reading.
            data = file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"it has more than {MAX_BYTES >> 20} MiB: that is no photo")
    return data


def facts_of(location: str) -> Facts:
    """Size and version of a file, without reading it.

    Raises:
        DataError: it is not there, or does not answer.
    """
    try:
        if not is_url(location):
            status = os.stat(location)
            return Facts(status.st_size, str(status.st_mtime_ns))
        fs, path = filesystem(location)
        info = _again(lambda: fs.info(path), location)
    except (OSError, ValueError) as error:
        raise DataError(f"{location} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return Facts(info.get("size"), next((str(info[key]) for key in VERSIONS if info.get(key)), ""))


def find_urls(url: str) -> list[str] | None:
    """What a pattern (`*`) or a folder holds, with all below, sorted; None for what is one file.

    Raises:
        DataError: it does not answer.
    """
    fs, path = filesystem(url)
    try:
        if "*" in url:
            found = _again(lambda: fs.glob(path), url)
        elif _again(lambda: fs.isdir(path), url):
            found = _again(lambda: fs.find(path), url)
        else:
            return None
    except (OSError, ValueError) as error:
        raise DataError(f"{url} cannot be listed: {error}.") from error
    return sorted(fs.unstrip_protocol(name) for name in found)


def beside(location: str, name: str) -> str:
    """What a name in the file at `location` leads to: relative ones lead from its folder."""
    if is_url(name) or os.path.isabs(name):
        return name
    if is_url(location):
        return f"{location.rpartition('/')[0]}/{name}"
    return str(Path(location).parent / name)


def _again(call: Callable[[], T], location: str) -> T:
    """What `call` gives; where a server does not answer it is asked again.

    Raises:
        OSError, ValueError: there is no such file, or it is none.
        StorageError: after the last time.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except ITS_OWN_FAULT:
            raise
        except Exception as error:  # each scheme has exceptions of its own
            if pause is None:
                raise StorageError(f"{location} could not be fetched: {str(error) or type(error).__name__}.") from error
            time.sleep(pause)
    raise AssertionError
