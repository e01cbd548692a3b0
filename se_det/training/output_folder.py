"""The output folder: claimed by one run, never written over by chance."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType

from .. import comm
from ..errors import CheckpointError
from .folder_lock import FolderLock

# What a run writes; a folder that holds any of these holds a run.
RUN_FILES = ("config.yaml", "metrics.json", "log.txt", "last_checkpoint", "*.pth", "events.out.tfevents.*")
RESULTS = ("inference/coco_instances_results.json", "inference/metrics.json", "report.html")
PARTIAL_FILES = re.compile(r"\..+\.tmp")  # of a write that was killed


class OutputFolder:
    """The output folder of a run, from the look at it to the run's end; two runs never have the same at one time.

    Leaving it lets go of its lock. All processes of a run may call what is here, and only the first does anything.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._folder = Path(folder)
        self._lock = FolderLock(folder)
        self._resume = self._overwrite = False

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that cannot be used, as `check_folder` does, or that another run uses.

        A run that is resumed holds the folder from now on, as its checkpoint must not be overtaken.

        Raises:
            CheckpointError: what is wrong with it.
        """
        if not comm.is_main_process():
            return
        self._resume, self._overwrite = resume, overwrite
        if os.path.exists(self._lock.path):
            self._lock.acquire()
        check_folder(self._folder, resume=resume, overwrite=overwrite)
        if resume:
            self._lock.acquire()

    def acquire(self) -> None:
        """Make the folder this run's, as `prepare_folder` does.

        Raises:
            CheckpointError: it cannot be made, written or emptied, or has become another run's since it was checked.
        """
        if not comm.is_main_process():
            return
        if not self._lock.held:
            make_folder(self._folder)
            self._lock.acquire()
            check_folder(self._folder, resume=self._resume, overwrite=self._overwrite)
        prepare_folder(self._folder, overwrite=self._overwrite)


def check_folder(folder: str | os.PathLike, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse an output folder that cannot be used, without touching it.

    Raises:
        CheckpointError: it is a file; it holds a run and neither `resume` nor `overwrite` is given, or both are;
            or there is nothing to resume.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise CheckpointError("--resume and --overwrite exclude each other: give one of them.")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"OUTPUT_DIR {folder} is a file: name a folder.")
    there = next((place for place in (folder, *folder.absolute().parents) if place.is_dir()), folder)
    if not os.access(there, os.W_OK | os.X_OK):
        raise CheckpointError(
            f"OUTPUT_DIR {folder} cannot be written ({there} is read-only, or not yours): change its permissions, or "
            "name another folder."
        )
    if resume:
        if not has_checkpoint(folder):
            raise CheckpointError(
                f"There is no checkpoint in {folder} to resume from: start with --overwrite instead of --resume."
            )
        return
    if not overwrite:
        found = find_run(folder)
        if found is not None:
            raise CheckpointError(
                f"OUTPUT_DIR {folder} holds another run ({found.name}): continue it with --resume, replace it with "
                "--overwrite, or name another folder."
            )


def has_checkpoint(folder: Path) -> bool:
    """Whether a run in `folder` can be resumed: the best weights alone are no checkpoint."""
    return any(path.stem != "model_best" for path in folder.glob("model_*.pth"))


def find_run(folder: Path) -> Path | None:
    """A file that a run wrote into `folder`, or None where it holds none."""
    return next(_run_files(folder), None)


def make_folder(folder: Path) -> None:
    """Make the folder where it is not there.

    Raises:
        CheckpointError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"OUTPUT_DIR {folder} cannot be made: {error.strerror}.") from error


def prepare_folder(folder: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Make the folder; remove what a killed run left half written; with `overwrite` remove what an earlier run wrote
    there, and nothing else.

    Raises:
        CheckpointError: it cannot be made or emptied.
    """
    folder = Path(folder)
    make_folder(folder)
    try:
        for path in chain(folder.iterdir(), folder.glob("inference/.*"), folder.glob("*/inference/.*")):
            if PARTIAL_FILES.fullmatch(path.name) and path.is_file():
                path.unlink()
        if overwrite:
            for path in [*_run_files(folder), *(folder / name for name in RESULTS)]:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"OUTPUT_DIR {folder} cannot be used: {error.strerror}.") from error


def _run_files(folder: Path) -> Iterator[Path]:
    for pattern in RUN_FILES:
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())
