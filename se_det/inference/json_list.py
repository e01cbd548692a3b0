"""Files of any length, written piece by piece, that are at their place once they are whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import open_temporary


class WholeText:
    """A text that begins with `head`, ends with `foot`, and is at its place once it is whole; a context manager."""

    def __init__(self, path: str | os.PathLike, head: str, foot: str) -> None:
        """
        Raises:
            CheckpointError: the folder cannot be written.
        """
        self.path = Path(path)
        self._foot = foot
        handle, self._temporary = open_temporary(self.path)
        self._file = os.fdopen(handle, "w", encoding="utf-8")
        self._file.write(head)

    def write(self, text: str) -> None:
        """Append.

        Raises:
            CheckpointError: the disk is full.
        """
        try:
            self._file.write(text)
        except OSError as error:
            raise CheckpointError(f"{self.path} could not be written: {error.strerror or error}.") from error

    def __enter__(self) -> WholeText:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self._file.write(self._foot)
            self._file.close()
            if kind is None:
                os.replace(self._temporary, self.path)
        except OSError as error:
            raise CheckpointError(f"{self.path} could not be written: {error.strerror or error}.") from error
        finally:
            if os.path.exists(self._temporary):
                os.unlink(self._temporary)


class JsonList(WholeText):
    """A file that holds a JSON list.

    Attributes:
        count: entries so far.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """
        Raises:
            CheckpointError: the folder cannot be written.
        """
        super().__init__(path, "[", "\n]\n")
        self.count = 0

    def __enter__(self) -> JsonList:
        return self

    def extend(self, entries: Iterable[Any]) -> None:
        """Append entries.

        Raises:
            CheckpointError: the disk is full.
        """
        for entry in entries:
            self.write((",\n" if self.count else "\n") + json.dumps(entry))
            self.count += 1
