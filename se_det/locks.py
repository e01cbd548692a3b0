"""Locks between processes, on every system: a file that one process holds at a time, and who that is.

The lock itself is filelock's: the kernel lets go of it when its holder ends in whatever way. Who holds it is written
into a file beside it, as Windows lets nobody read a file that is locked.
"""

from __future__ import annotations

import datetime
import errno
import os
import socket
import warnings
from contextlib import suppress
from pathlib import Path

with warnings.catch_warnings():
    # Of a Python that has no locks of the system's: filelock then looks whether the holder is still alive.
    warnings.filterwarnings("ignore", message="only soft file lock")
    from filelock import FileLock, Timeout

MAX_HOLDER_LENGTH = 300  # characters
ATTEMPTS = 100  # where the holder of before has removed the file just after it was opened here


class ProcessLock:
    """At most one process holds the lock that is the file `path`.

    A file that is left behind locks nothing. Processes that this one forks do not hold the lock, so workers that
    outlive it for a moment do not keep the next one waiting.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._holder = self.path.with_name(f"{self.path.name}_holder")
        self._lock = FileLock(str(self.path), thread_local=False)

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock, which this object must not hold.

        Args:
            wait: until it is free, for as long as that takes.

        Returns:
            False where another process holds it, or another object of this one.

        Raises:
            OSError: its file cannot be made there, or the file system has no locks.
        """
        for _ in range(ATTEMPTS):
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="flock not supported")  # a soft lock then, see above
                    self._lock.acquire(timeout=-1 if wait else 0)
                break
            except Timeout:
                if self.path.exists():
                    return False
            except NotImplementedError as error:  # older filelocks, of a file system without locks
                raise OSError(errno.ENOLCK, "No locks available") from error
        else:
            return False
        now = datetime.datetime.now().isoformat(" ", "seconds")
        with suppress(OSError):  # a full disk: who holds the lock is then not told
            self._holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {now}\n", encoding="utf-8")
        return True

    def holder(self) -> str:
        """Who holds the lock: its process, machine and since when, as far as it is told."""
        try:
            with open(self._holder, encoding="utf-8", errors="replace") as file:
                return file.read(MAX_HOLDER_LENGTH).strip() or "another process"
        except OSError:
            return "another process"

    def release(self) -> None:
        """Let go of the lock, which this object must hold, and remove its files."""
        with suppress(OSError):
            self._holder.unlink(missing_ok=True)
        # Before letting go, as then nobody can have locked the file that is removed: whoever has opened it sees that
        # and opens the next. Windows does not remove an open file, and filelock does so there.
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._lock.release()
