"""The writer `json`: metrics.json, which resumed runs, the report and other programs read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ...errors import CheckpointError
from ...files import write_text
from .registry import WRITERS, is_finite, no_room

FILE = "metrics.json"


@WRITERS.register(name="json")
class JSONWriter:
    """Appends to `metrics.json`, a JSON object a line.

    `iteration` is the number of steps done. A number that is not finite is null.

    Args:
        folder: of the run.
        start: the step resumed from: lines after it, of a run that was killed later, are removed.
        evaluated: whether the evaluation due at `start` was done; its line is removed when it was not.
    """

    def __init__(self, folder: str | Path, *, start: int = 0, evaluated: bool = True) -> None:
        self.path = Path(folder) / FILE
        if start:
            truncate_metrics(self.path, start, evaluated=evaluated)
        try:
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be written: {error.strerror}.") from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` as measured after `step` steps."""
        finite = {k: v if is_finite(v) else None for k, v in values.items()}
        try:
            self._file.write(json.dumps({"iteration": step, **finite}) + "\n")
            self._file.flush()
        except OSError as error:
            raise no_room(str(self.path), error) from error

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # `write` has told of a full disk, or a checkpoint will
            self._file.close()


def truncate_metrics(path: Path, step: int, *, evaluated: bool = True) -> None:
    """Remove the lines of `path` that were written after `step` steps, and a torn last one."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    kept = []
    for line in lines:
        try:
            values = json.loads(line)
            iteration = values["iteration"]
        except (ValueError, KeyError, TypeError):
            continue
        of_evaluation = any("/" in name for name in values)
        if iteration < step or (iteration == step and (evaluated or not of_evaluation)):
            kept.append(line + "\n")
    write_text(path, "".join(kept))
