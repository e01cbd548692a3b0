"""A lock on a folder, which the system lets go of when its holder ends in whatever way."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from ..errors import CheckpointError
from ..locks import ProcessLock

FILE = ".lock"
# What file systems say that have no locks.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

logger = logging.getLogger(__name__)


class FolderLock:
    """At most one process holds the lock of a folder: a lock on the file `.lock` in it, see `ProcessLock`."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self.held = False  # whether this object holds the lock
        self._lock = ProcessLock(self.path)

    def acquire(self) -> None:
        """Take the lock of the folder, which must be there, unless it is held already.

        Where the file system has no locks, a line says so.

        Raises:
            CheckpointError: another run holds it, by its process, its host and since when; or the folder cannot be
                written.
        """
        if self.held:
            return
        try:
            if not self._lock.acquire():
                raise CheckpointError(
                    f"OUTPUT_DIR {self.folder} is in use by another run ({self._lock.holder()}): wait for it, end it, "
                    "or name another folder."
                )
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise CheckpointError(
                    f"OUTPUT_DIR {self.folder} cannot be written: {error.strerror or error}. Change its permissions, "
                    "or name another folder."
                ) from error
            logger.warning(
                "The file system of OUTPUT_DIR %s has no locks (%s): see to it that no other run uses the folder.",
                self.folder, error.strerror,
            )  # fmt: skip
        self.held = True

    def release(self) -> None:
        """Let go of the lock and remove its files."""
        if self.held:
            self._lock.release()
            self.held = False
