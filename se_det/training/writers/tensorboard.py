"""The writer `tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ...errors import CheckpointError
from .registry import WRITERS, is_finite, no_room


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
                if is_finite(value):
                    self._board.add_scalar(name, value, step)
        except OSError as error:
            raise no_room(f"TensorBoard's file in {self._folder}", error) from error

    def close(self) -> None:
        """Write out what is buffered and close the file."""
        with suppress(OSError):
            self._board.close()
