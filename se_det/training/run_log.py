"""Where log lines go: the terminal, and `log.txt` once the output folder is claimed."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import comm
from ..errors import CheckpointError
from ..terminal import EscapingFormatter

FILE = "log.txt"
TEMPLATE = "%(asctime)s %(levelname).1s %(message)s"
FORMAT = EscapingFormatter(TEMPLATE, "%Y-%m-%d %H:%M:%S")
ROOT = "se_det"


class _LogFile(logging.FileHandler):
    """A file that, once it cannot be written, says so and is left alone: the run is not for its log."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        self.addFilter(lambda record: False)
        with suppress(OSError):  # what it still holds cannot be written either
            self.stream.close()
        self.stream = None
        logging.getLogger(ROOT).error("%s cannot be written any more: %s.", self.baseFilename, error)


class RunLog:
    """Keeps the lines before there is a folder, so that `log.txt` begins with the first of them."""

    def __init__(self) -> None:
        self._memory = logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
        self._file: logging.Handler | None = None

    def write_to(self, folder: str | Path) -> None:
        """From now on, and with what was kept, append to `log.txt` in `folder`.

        Raises:
            CheckpointError: it cannot be opened.
        """
        try:
            self._file = _LogFile(Path(folder) / FILE, encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"{Path(folder) / FILE} cannot be written: {error.strerror}.") from error
        self._file.setFormatter(FORMAT)
        logger = logging.getLogger(ROOT)
        self._memory.setTarget(self._file)
        self._memory.flush()
        logger.removeHandler(self._memory)
        logger.addHandler(self._file)

    def close(self) -> None:
        """Write nothing more."""
        logger = logging.getLogger(ROOT)
        logger.removeHandler(self._memory)
        self._memory.setTarget(None)
        self._memory.close()
        if self._file is not None:
            logger.removeHandler(self._file)
            self._file.close()


@contextmanager
def run_log() -> Iterator[RunLog]:
    """Log lines of the package go to the terminal inside, unless a handler takes them already.

    The first process tells everything; what the others would tell is the same, up to errors.
    """
    logger = logging.getLogger(ROOT)
    level = logger.level
    terminal = None
    if not logger.handlers and not logging.getLogger().handlers:
        terminal = logging.StreamHandler(sys.stdout)
        prefix = "" if comm.is_main_process() else f"[process {comm.get_rank()}] "
        terminal.setFormatter(EscapingFormatter(prefix + TEMPLATE, FORMAT.datefmt))
        logger.addHandler(terminal)
    log = RunLog()
    logger.setLevel(logging.INFO if comm.is_main_process() else logging.ERROR)
    logger.addHandler(log._memory)
    try:
        yield log
    finally:
        log.close()
        if terminal is not None:
            logger.removeHandler(terminal)
        logger.setLevel(level)
