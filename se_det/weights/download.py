"""Files from the network: into a cache, resumed, verified, whole or absent, by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from ..errors import WeightsError
from ..locks import ProcessLock
from .transport import NoConnection, PermanentFailure, TransientFailure, open_url

CACHE_VARIABLE = "SE_DET_CACHE"
CHUNK = 1 << 20
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt; doubled before each further one

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where downloads are kept: `SE_DET_CACHE`, else `~/.cache/se_det`."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path("~/.cache/se_det")).expanduser()


def hash_in_name(name: str) -> str | None:
    """The beginning of the sha256 in a name such as `se_resnet50-ce0d4300.pth`; a date is none."""
    found = re.search(r"-([0-9a-f]{8,64})(\.\w+)+$", name)
    if found is None or re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", found[1]):
        return None
    return found[1]


def cache_path(url: str, cache: str | Path | None = None) -> Path:
    """The file that `url` is kept as. A name without a hash may be several files', so its address tells them apart.

    Raises:
        WeightsError: it is no URL.
    """
    try:
        name = urlsplit(url).path.rsplit("/", 1)[-1]
    except ValueError as error:
        raise WeightsError(f"{url} is not a valid address ({error}).") from error
    folder = Path(cache) if cache is not None else cache_folder()
    if hash_in_name(name):
        return folder / name
    return folder / hashlib.sha256(url.encode()).hexdigest()[:8] / (name if name.strip(".") else "file")


def fetch(url: str, *, digest: str | None = None, cache: str | Path | None = None) -> Path:
    """The file at `url`, from the cache or downloaded into it.

    Args:
        url: http, https or file.
        digest: its sha256 in hexadecimal, or "md5:" and its md5, whole or the beginning; None takes the sha256 in the
            file's name, where there is one.
        cache: a folder; None is `cache_folder()`.

    Returns:
        its path, verified now whether it was downloaded now or earlier.

    Raises:
        WeightsError: it cannot be had, is not what it should be, or cannot be stored; the sentence says what to do.
            Nothing is at the returned path then; a part that can be continued is kept beside it.
    """
    path = cache_path(url, cache)
    expected = digest or hash_in_name(path.name)
    try:
        if _is_valid(path, expected):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            if _is_valid(path, expected):  # another process was faster
                return path
            if path.exists():
                logger.warning("%s is damaged (its hash has changed): it is downloaded again.", path)
                _remove(path)
            _download(url, path, expected)
    except OSError as error:
        raise WeightsError(_cannot_store(error, path, url)) from error
    return path


def verify(path: Path, expected: str, origin: str) -> None:
    """Refuse a file whose digest does not begin with `expected` (see `fetch`).

    Raises:
        WeightsError: naming both hashes.
    """
    mismatch = _mismatch(path, expected)
    if mismatch:
        raise WeightsError(
            f"{path} is not the file that {origin} names: {mismatch}. It is damaged or another file: get it again."
        )


def _mismatch(path: Path, expected: str) -> str:
    """How the file's digest differs from the expected one; "" where it does not."""
    kind, _, digits = expected.rpartition(":")
    found = _digest(path, kind or "sha256")
    if found.startswith(digits):
        return ""
    return f"its {kind or 'sha256'} begins with {found[: len(digits)]}, not {digits}"


def _is_valid(path: Path, expected: str | None) -> bool:
    """Whether the cached file is there and has its hash: the known one, or the one it had when it landed."""
    if not path.is_file():
        return False
    if expected is None:
        note = _note(path)
        if not note.is_file():
            logger.info("%s was put there by hand and no hash of it is known: it is used unverified.", path)
            return True
        expected = note.read_text(encoding="utf-8").strip()
    return not _mismatch(path, expected)


def _download(url: str, path: Path, expected: str | None) -> None:
    part = path.with_name(f"{path.name}.part")
    resumed = _receive(url, path, part, expected)
    mismatch = _mismatch(part, expected) if expected else ""
    if mismatch and resumed:
        logger.warning("The parts of %s do not fit together: it is downloaded from the beginning.", url)
        _forget(part)
        _receive(url, path, part, expected)
        mismatch = _mismatch(part, expected)
    if mismatch:
        _forget(part)
        raise WeightsError(
            f"{url} gave another file than it should: {mismatch}. It was changed on its way or at its source, and was "
            f"removed: try again, or get the file elsewhere and put it at {path}."
        )
    if expected is None:
        digest = _digest(part)
        logger.warning("No hash of %s is known: it is unverified. Its sha256 is %s.", url, digest)
        _note(path).write_text(f"{digest}\n", encoding="utf-8")
    os.replace(part, path)
    _validator(part).unlink(missing_ok=True)


def _receive(url: str, path: Path, part: Path, expected: str | None) -> bool:
    """Fill `part`; whether it had a beginning from an earlier run."""
    resumed = part.exists() and part.stat().st_size > 0
    if resumed and expected is None and not _validator(part).is_file():
        _forget(part)  # nothing would tell whether the rest belongs to it
        resumed = False
    for attempt in range(ATTEMPTS):
        try:
            _receive_once(url, path, part)
            return resumed
        except PermanentFailure as error:
            raise WeightsError(f"{url} {error}. Get the file elsewhere and put it at {path}.") from error
        except NoConnection as error:
            raise WeightsError(
                f"{path.name} is not in the cache, and there is no way to its host ({error}). "
                f"{_manual_download(url, path)}"
            ) from error
        except TransientFailure as error:
            if attempt == ATTEMPTS - 1:
                now = part.stat().st_size if part.exists() else 0
                kept = f" {now:,} bytes are kept, and the next try goes on from there." if now else ""
                raise WeightsError(
                    f"{url} could not be downloaded: {error}.{kept} {_manual_download(url, path)}"
                ) from error
            logger.warning("%s: %s; trying again.", url, error)
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _receive_once(url: str, path: Path, part: Path) -> None:
    start = part.stat().st_size if part.exists() else 0
    note = _validator(part)
    known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    with open_url(url, start=start, validator=known) as answer:
        if answer.start and known and answer.validator and answer.validator != known:
            _forget(part)
            raise TransientFailure("the file was changed at its source")
        start = answer.start  # 0 when the server sends the whole file
        size = "unknown size" if answer.total is None else f"{answer.total / 2**20:.1f} MiB"
        logger.info("Downloading %s (%s) to %s%s.", url, size, path, f" from byte {start:,}" if start else "")
        missing = 0 if answer.total is None else answer.total - start
        free = shutil.disk_usage(part.parent).free
        if missing > free:
            raise OSError(errno.ENOSPC, f"it needs {missing / 2**20:.0f} MiB and there are {free / 2**20:.0f}")
        # Unbuffered: what the file holds after a failure is what was received.
        with open(part, "ab" if start else "wb", buffering=0) as file:
            if answer.validator:
                note.write_text(json.dumps(answer.validator), encoding="utf-8")
            else:
                note.unlink(missing_ok=True)
            with tqdm(
                total=answer.total, initial=start, unit="B", unit_scale=True, desc=path.name, disable=None
            ) as bar:
                received = start
                for chunk in answer.chunks(CHUNK):
                    _write(file, chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
            os.fsync(file.fileno())
        if answer.total is not None and received != answer.total:
            raise TransientFailure(f"it ended after {received:,} of {answer.total:,} bytes")


def _write(file: object, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait for whoever downloads the same file; the system frees the lock of a process that dies."""
    lock = ProcessLock(path.with_name(f"{path.name}.lock"))
    if not lock.acquire():
        logger.info("Another process is downloading %s: waiting for it (%s).", path.name, lock.holder())
        lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


def _digest(path: Path, kind: str = "sha256") -> str:
    digest = hashlib.new(kind, usedforsecurity=False)  # md5, too, of which only damage is to be known
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}.from")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    path.unlink()
    _note(path).unlink(missing_ok=True)


def _manual_download(url: str, path: Path) -> str:
    or_name = " or name its path in MODEL.WEIGHTS" if hash_in_name(path.name) else ""
    return f"Get {url} on a machine that can, and put the file at {path}{or_name}."


def _cannot_store(error: OSError, path: Path, url: str) -> str:
    where = f"Downloads are kept in {path.parent}; {CACHE_VARIABLE} names another folder."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        detail = f" ({error.strerror})" if error.strerror and error.strerror != os.strerror(error.errno) else ""
        return f"The disk is full{detail}: {path.name} was not stored. Free space, and the next try goes on. {where}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{path} cannot be written ({error.strerror}), so {url} cannot be downloaded. {where}"
    return f"{path} could not be stored: {error.strerror or error}. {where}"
