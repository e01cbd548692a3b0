"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed over it."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from .errors import CheckpointError

MAX_NAME_LENGTH = 100  # bytes of a file's name in that of its temporary one; file systems hold from 143 to 255


def atomic_write(path: str | os.PathLike, write: Callable[[IO[bytes]], None]) -> None:
    """Let `write(file)` fill a temporary file in the folder of `path`, then rename it to `path`.

    A reader, or a run that dies at any moment, sees the old file or the new one, never a part.

    Raises:
        CheckpointError: the folder cannot be written or the disk is full; the old file is intact.
    """
    path = Path(path)
    temporary = None
    try:
        handle, temporary = _open_temporary(path, ".tmp")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        # torch.save fails a second time, and in its own way, when it closes its archive on a full disk.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        kept = " The previous file is unchanged." if path.exists() else ""
        raise CheckpointError(f"{path} could not be written: {cause.strerror or cause}.{kept}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def replace_together(contents: Mapping[Path, bytes]) -> None:
    """Write files of one folder that belong together; the last of them is the one that is opened.

    Whoever dies at any moment leaves all as they were, all new, or the last missing: never one of these with another's
    companions.

    Raises:
        CheckpointError: the folder cannot be written or the disk is full; the old files are intact.
    """
    *others, last = contents
    try:
        with tempfile.TemporaryDirectory(prefix=f".{_short(last)}.", suffix=".tmp", dir=last.parent) as folder:
            for path, data in contents.items():
                with open(Path(folder, path.name), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            if others:
                last.unlink(missing_ok=True)
            for path in contents:
                os.replace(Path(folder, path.name), path)
        _sync_folder(last.parent)
    except OSError as error:
        kept = " The previous file is unchanged." if last.exists() else ""
        raise CheckpointError(f"{last} could not be written: {error.strerror or error}.{kept}") from error


def open_temporary(path: str | os.PathLike, suffix: str = ".tmp") -> tuple[int, str]:
    """An open, empty file in the folder of `path`, to be renamed to it: its descriptor and name.

    Raises:
        CheckpointError: the folder cannot be made or written.
    """
    try:
        return _open_temporary(Path(path), suffix)
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error.strerror or error}.") from error


def check_writable(folder: str | os.PathLike) -> None:
    """Make `folder` and see that files can be written there, before the work whose results belong there.

    Raises:
        CheckpointError: it is a file, or cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointError(
            f"The output folder {folder} cannot be written: {error.strerror or error}. Give another one."
        ) from error


def open_regular_file(path: str | os.PathLike) -> IO[bytes]:
    """Open a file to read its bytes. Pipes, which would be waited for without end, and devices, which may have none,
    are refused.

    Raises:
        OSError: it is not there, cannot be read, or is no file.
    """
    # Without waiting for who writes into a pipe. On Windows there are no such, and text is changed unless one says no.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "it is no file", os.fspath(path))


def is_within(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether `path`, absolute as `folder` is, is that folder or lies in it; nothing on another drive does."""
    try:
        return os.path.commonpath([path, folder]) == os.path.normpath(folder)
    except ValueError:
        return False


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    atomic_write(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: str | os.PathLike, value: Any, *, indent: int | None = None) -> None:
    """Write `value` as JSON, atomically."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def _open_temporary(path: Path, suffix: str) -> tuple[int, str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{_short(path)}.", suffix=suffix, dir=path.parent)
    # mkstemp makes the file private; give it the permissions an ordinary open() would.
    os.chmod(name, 0o666 & ~_umask())
    return handle, name


def _short(path: Path) -> str:
    """The start of a file's name, to which something can be added: a sound name must not become too long by that."""
    return os.fsencode(path.name)[:MAX_NAME_LENGTH].decode(errors="ignore")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the file system lets a folder be flushed."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
