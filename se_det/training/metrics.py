"""metrics.json and TensorBoard: what a run measured, by the step it measured it at."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import CheckpointError
from ..files import write_text

FILE = "metrics.json"


class MetricsWriter:
    """Appends to `metrics.json`, a JSON object a line, and to TensorBoard's event file.

    `iteration` is the number of steps done. A number that is not finite is null.

    Args:
        folder: of the run.
        start: the step resumed from: lines after it, of a run that was killed later, are removed.
        evaluated: whether the evaluation due at `start` was done; its line is removed when it was not.
    """

    def __init__(self, folder: str | Path, *, start: int = 0, evaluated: bool = True) -> None:
        # Imported here: it takes a second, which a run has and `import se_det` has not.
        from torch.utils.tensorboard import SummaryWriter

        self.path = Path(folder) / FILE
        if start:
            truncate_metrics(self.path, start, evaluated=evaluated)
        try:
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
            self._board = SummaryWriter(str(folder), purge_step=start + 1 if start else None)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be written: {error.strerror}.") from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` as measured after `step` steps."""
        finite = {k: v if isinstance(v, int) or math.isfinite(v) else None for k, v in values.items()}
        try:
            self._file.write(json.dumps({"iteration": step, **finite}) + "\n")
            self._file.flush()
            for name, value in finite.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
        except OSError as error:
            raise CheckpointError(
                f"{self.path}, or TensorBoard's file beside it, cannot be written: {error.strerror or error}. Make "
                "room, then --resume goes on from the last checkpoint."
            ) from error

    def close(self) -> None:
        """Write out what is buffered and close the files."""
        with suppress(OSError):  # `write` has told of a full disk, or a checkpoint will
            self._file.close()
        with suppress(OSError):
            self._board.close()


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
