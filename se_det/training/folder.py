"""The output folder: claimed by one run, never written over by chance."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError

# What a run writes; a folder that holds any of these holds a run.
TRACES = ("config.yaml", "metrics.json", "log.txt", "last_checkpoint", "*.pth", "events.out.tfevents.*")
RESULTS = ("inference/coco_instances_results.json", "inference/metrics.json", "report.html")
UNFINISHED = re.compile(r"\..+\.tmp")  # of a write that was killed


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
    if resume:
        if not any(p.stem != "model_best" for p in folder.glob("model_*.pth")):
            raise CheckpointError(
                f"There is no checkpoint in {folder} to resume from: start with --overwrite instead of --resume."
            )
        return
    if not overwrite:
        found = next(_traces(folder), None)
        if found is not None:
            raise CheckpointError(
                f"OUTPUT_DIR {folder} holds another run ({found.name}): continue it with --resume, replace it with "
                "--overwrite, or name another folder."
            )


def claim_folder(folder: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Make the folder; with `overwrite` remove what an earlier run wrote there, and nothing else.

    Raises:
        CheckpointError: it cannot be made or emptied.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if UNFINISHED.fullmatch(path.name) and path.is_file():
                path.unlink()
        if overwrite:
            for path in [*_traces(folder), *(folder / name for name in RESULTS)]:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"OUTPUT_DIR {folder} cannot be used: {error.strerror}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CheckpointError(f"OUTPUT_DIR {folder} cannot be written: change its permissions or name another.")


def _traces(folder: Path) -> Iterator[Path]:
    for pattern in TRACES:
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())
