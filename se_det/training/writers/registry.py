"""Where a run's numbers go: a registry of writers, chosen by WRITERS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import CheckpointError, ConfigError, SeDetError
from ...registry import Registry

WRITERS = Registry("writer")


class Writer(Protocol):
    """Something that numbers of a run are written to; made on the first process, as
    `kind(folder, start=..., evaluated=...)`.

    `folder` is the run's, with its `config.yaml`; `start` is the step resumed from (0 for a new run): what was written
    after it, by a run that was killed later, is to be removed or overwritten; `evaluated` says whether the evaluation
    due at `start` was done.
    """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take `values` as measured after `step` steps: losses, rates and seconds by name, metrics as "task/name".
        A number that is not finite may be among them."""
        ...

    def close(self) -> None:
        """Write out what is buffered; called once, also when the run fails."""
        ...

    # A writer may have these two besides.
    #
    # def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
    #     """Take a picture of detections, uint8 (height, width, 3) BGR: the same images after each evaluation."""
    #
    # def file(self, path: Path) -> None:
    #     """Take a file that the run has written when it is over: its report."""


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

    @property
    def takes_pictures(self) -> bool:
        """Whether any of them does anything with a picture."""
        return any(hasattr(writer, "picture") for _, writer in self._writers)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Give a picture to those that take one."""
        self._give("picture", step, name, pixels)

    def file(self, path: Path) -> None:
        """Give a file to those that take one."""
        self._give("file", path)

    def _give(self, method: str, *what: Any) -> None:
        for _, writer in self._writers:
            if hasattr(writer, method):
                getattr(writer, method)(*what)

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


def is_finite(value: float) -> bool:
    """Whether a number is neither infinite nor not a number at all."""
    return isinstance(value, int) or math.isfinite(value)


def no_room(what: str, error: OSError) -> CheckpointError:
    """What a run ends with whose disk is full."""
    return CheckpointError(
        f"{what} cannot be written: {error.strerror or error}. Make room, then --resume goes on from the last "
        "checkpoint."
    )
