"""A lock on a folder, which the kernel lets go of when its holder ends in whatever way."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path

from ..errors import CheckpointError

FILE = ".lock"
ATTEMPTS = 100
# What file systems say that have no locks.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

logger = logging.getLogger(__name__)


class FolderLock:
    """At most one process holds the lock of a folder: a lock on the file `.lock` in it, which says who holds it.

    A file that is left behind locks nothing; only the kernel's lock on it does. Processes that this one forks do not
    hold the lock, so workers that outlive it for a moment do not keep the next run waiting.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._handle is not None

    def acquire(self) -> None:
        """Take the lock of the folder, which must be there, unless it is held already.

        Where the file system has no locks, a line says so.

        Raises:
            CheckpointError: another run holds it, by its process and host; or the folder cannot be written.
        """
        if self.held:
            return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise CheckpointError(
                    f"OUTPUT_DIR {self.folder} cannot be written: {error.strerror}. Change its permissions, or name "
                    "another folder."
                ) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
                os.close(handle)
                raise CheckpointError(
                    f"OUTPUT_DIR {self.folder} is in use by another run ({holder}): wait for it, end it, or name "
                    "another folder."
                ) from None
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    os.close(handle)
                    raise CheckpointError(f"{self.path} cannot be locked: {error.strerror}.") from error
                logger.warning(
                    "The file system of OUTPUT_DIR %s has no locks (%s): see to it that no other run uses the folder.",
                    self.folder, error.strerror,
                )  # fmt: skip
            # Else the holder before has removed it in between; or, every time, the file system has no lasting numbers
            # for its files.
            if self._is_current(handle) or attempt == ATTEMPTS:
                self._keep(handle)
                return
            os.close(handle)

    def release(self) -> None:
        """Let go of the lock and remove its file."""
        if self._handle is None:
            return
        if self._is_current(self._handle):
            self.path.unlink(missing_ok=True)  # first, as then nobody can have locked the file that is removed
        self._close()

    def _is_current(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except OSError:
            return False

    def _keep(self, handle: int) -> None:
        self._handle = handle
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError:  # a full disk: who holds the lock is then not told
            pass
        os.register_at_fork(after_in_child=self._close)

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
