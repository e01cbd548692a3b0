"""Where a run's numbers go: a registry of writers, chosen by WRITERS."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from ..errors import CheckpointError, ConfigError, SeDetError
from ..files import write_text
from ..registry import Registry

FILE = "metrics.json"
WRITERS = Registry("writer")


class Writer(Protocol):
    """Something that numbers of a run are written to; made on the first process, as
    `kind(folder, start=..., evaluated=...)`.

    `folder` is the run's; `start` is the step resumed from (0 for a new run): what was written after it, by a run that
    was killed later, is to be removed or overwritten; `evaluated` says whether the evaluation due at `start` was done.
    """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take `values` as measured after `step` steps: losses, rates and seconds by name, metrics as "task/name".
        A number that is not finite may be among them."""
        ...

    def close(self) -> None:
        """Write out what is buffered; called once, also when the run fails."""
        ...


class Writers:
    """Several writers as one.

    Args:
        names: see `WRITERS`.
        folder, start, evaluated: see `Writer`.

    Raises:
        ConfigError: an unknown name.
        CheckpointError: one cannot be written to.
    """

    def __init__(self, names: Sequence[str], folder: str | Path, *, start: int = 0, evaluated: bool = True) -> None:
        check_writers(names)
        self._writers: list[tuple[str, Writer]] = []
        for name in names:
            try:
                writer = WRITERS.get(name, "WRITERS")(Path(folder), start=start, evaluated=evaluated)
            except SeDetError:
                self.close()
                raise
            self._writers.append((name, writer))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Give `values` to each.

        Raises:
            CheckpointError: one cannot be written to.
        """
        for name, writer in self._writers:
            try:
                writer.write(step, values)
            except OSError as error:
                raise CheckpointError(
                    f"The writer '{name}' (WRITERS) cannot write: {error.strerror or error}. Mend that, or leave it "
                    "out; --resume goes on from the last checkpoint."
                ) from error

    def close(self) -> None:
        """Close each, whatever becomes of the others."""
        with ExitStack() as stack:
            for _, writer in reversed(self._writers):
                stack.callback(writer.close)


def check_writers(names: Sequence[str]) -> None:
    """Refuse unknown names, before a run.

    Raises:
        ConfigError: an unknown name, or one that is used twice.
    """
    for name in names:
        WRITERS.get(name, "WRITERS")
    if len(set(names)) < len(names):
        raise ConfigError(f"WRITERS {list(names)} names a writer twice.")


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
        finite = {k: v if _is_finite(v) else None for k, v in values.items()}
        try:
            self._file.write(json.dumps({"iteration": step, **finite}) + "\n")
            self._file.flush()
        except OSError as error:
            raise _no_room(str(self.path), error) from error

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # `write` has told of a full disk, or a checkpoint will
            self._file.close()


@WRITERS.register(name="tensorboard")
class TensorBoardWriter:
    """Writes TensorBoard's event file; a number that is not finite is left out. The arguments are `JSONWriter`'s."""

    def __init__(self, folder: str | Path, *, start: int = 0, evaluated: bool = True) -> None:
        # Imported here: it takes a second, which a run has and `import se_det` has not.
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        try:
            self._board = SummaryWriter(str(folder), purge_step=start + 1 if start else None)
        except OSError as error:
            raise CheckpointError(f"TensorBoard's file in {folder} cannot be written: {error.strerror}.") from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` as measured after `step` steps."""
        try:
            for name, value in values.items():
                if _is_finite(value):
                    self._board.add_scalar(name, value, step)
        except OSError as error:
            raise _no_room(f"TensorBoard's file in {self._folder}", error) from error

    def close(self) -> None:
        """Write out what is buffered and close the file."""
        with suppress(OSError):
            self._board.close()


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def _no_room(what: str, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{what} cannot be written: {error.strerror or error}. Make room, then --resume goes on from the last "
        "checkpoint."
    )


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
