"""Making the runs of a study that are not done yet, by as many processes as look at its folder."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from ..files import check_writable, write_json
from ..locks import ProcessLock
from ..training.folder_lock import FolderLock
from ..training.output_folder import has_checkpoint
from .plan import Run, Study
from .process import RunFailed, make_run
from .results import RESULT, measure_cost, read_history

KEYS = "keys.json"  # in a run's folder: what it was made with
CLAIM = ".claim"  # beside it: the lock of the process that makes it
PAUSE = 2.0  # seconds between looks at runs that another process makes

logger = logging.getLogger(__name__)


def run_study(study: Study, output: str | Path, *, make: Callable[..., dict[str, Any]] = make_run) -> dict[Run, str]:
    """Make every run of `study` that is not done, going on with those that were begun.

    A run is claimed by a lock on its folder, so other processes, on machines that share the folder too, make others
    meanwhile; those that another one is making are waited for.

    Args:
        output: the study's folder.
        make: see `process.make_run`.

    Returns:
        the runs that failed here, and why.

    Raises:
        ConfigError: a run in the folder was made with other keys.
        CheckpointError: the folder cannot be written.
        Terminated: a run was asked to end, and is saved.
    """
    output = Path(output)
    check_writable(output)
    runs = study.runs()
    for run in runs:
        _check_keys(study, run, output)
    failed: dict[Run, str] = {}
    while True:
        left = [run for run in runs if run not in failed and not (run.folder(output) / RESULT).is_file()]
        if not left:
            return failed
        if not any(_try_run(study, run, output, runs, failed, make) for run in left):
            time.sleep(PAUSE)  # all of them are being made by others


def _try_run(
    study: Study, run: Run, output: Path, runs: list[Run], failed: dict[Run, str], make: Callable[..., dict[str, Any]]
) -> bool:
    """Make a run unless another process does; whether it is over now."""
    folder = run.folder(output)
    folder.parent.mkdir(parents=True, exist_ok=True)
    claim = ProcessLock(folder.with_name(f"{CLAIM}_{folder.name}"))
    if not claim.acquire():
        return False
    try:
        if (folder / RESULT).is_file():
            return True
        if not _is_free(folder):
            return False
        done = sum((other.folder(output) / RESULT).is_file() for other in runs)
        logger.info("%s: run %d of %d.", run.name, done + 1, len(runs))
        try:
            _make(study, run, output, make)
        except RunFailed as error:
            failed[run] = str(error)
            logger.warning("%s failed: %s", run.name, error)
        return True
    finally:
        claim.release()


def _is_free(folder: Path) -> bool:
    """Whether no run is left in the folder of a study's process that was killed; such a one saves itself and ends."""
    lock = FolderLock(folder)
    if not lock.path.exists():
        return True
    try:
        lock.acquire()
    except CheckpointError:
        return False
    lock.release()
    return True


def _make(study: Study, run: Run, output: Path, make: Callable[..., dict[str, Any]]) -> None:
    folder = run.folder(output)
    cfg = study.load_config(run, output)
    first = None
    if study.same_start:
        row = next(iter(study.rows))
        first = study.load_config(next(r for r in study.runs() if r.row == row and r.seed == run.seed), output)
    resume = has_checkpoint(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / KEYS, {"config": study.config, "same_start": study.same_start, "keys": run.keys}, indent=1)
    result = make(study.kind, cfg, first, resume=resume)
    values = {f"{task}/{name}": value for task, found in result["metrics"].items() for name, value in found.items()}
    if study.metric not in values:
        raise RunFailed(f"it has no metric {study.metric}, only {', '.join(sorted(values)) or 'none'}")
    write_json(
        folder / RESULT,
        {
            "metric": values[study.metric],
            "metrics": {name: value for name, value in values.items() if isinstance(value, (int, float))},
            "memory_mib": result["memory_mib"],
            **read_history(folder),
            **measure_cost(study.kind, folder),
        },
        indent=1,
    )


def _check_keys(study: Study, run: Run, output: Path) -> None:
    """Refuse a folder in which this run was made with other keys."""
    path = run.folder(output) / KEYS
    if not path.is_file():
        return
    made = json.loads(path.read_text(encoding="utf-8"))
    asked = json.loads(json.dumps({"config": study.config, "same_start": study.same_start, **run.keys}))
    before = {"config": made["config"], "same_start": made["same_start"], **made["keys"]}
    for key in sorted({*asked, *before}):
        if asked.get(key) != before.get(key):
            raise ConfigError(
                f"{path.parent} was made with {key} {before.get(key, '(not set)')!r}, and the study says "
                f"{asked.get(key, '(not set)')!r}: name another folder with --output, or remove that run."
            )
