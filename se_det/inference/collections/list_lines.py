"""Lists of images: a path or URL a line (.txt), a column (.csv), or a key (.jsonl)."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from typing import IO

from ...data.formats.csv_rows import delimiter
from ...data.listing import is_image_name
from ...errors import DataError
from .storage import is_url

NAMES = ("image", "file_name", "filename", "image_path", "filepath", "path", "file", "url", "uri", "image_url")
LONGEST = 2**20  # bytes of a line
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineReader:
    """Finds the lines of a list that name images, and reads what they name.

    Args:
        location: of the list; its ending says how lines are written.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._kind = location.lower().rpartition(".")[2]
        self._delimiter, self._column = ",", -1
        self._header = False  # whether the first line that is not empty is one

    def lines(self, file: IO[bytes], update: Callable[[bytes], object] | None = None) -> Iterator[tuple[int, bytes]]:
        """(byte at which it begins, line) for each that names an image, from where `file` stands.

        Args:
            update: is given all that is read.

        Raises:
            DataError: a line is far too long for one, or a CSV does not say where its images are.
        """
        offset = file.tell()
        for line in iter(lambda: file.readline(LONGEST), b""):
            if update is not None:
                update(line)
            if len(line) == LONGEST:
                raise DataError(f"{self.location} has a line of more than {LONGEST} bytes: it is no list of images.")
            begins, offset = offset, offset + len(line)
            if line.isspace() or line == BYTE_ORDER_MARK:
                continue
            if self._kind == "csv" and self._column < 0:
                self._read_first(line)
                if self._header:
                    continue
            yield begins, line

    def name(self, line: bytes) -> str:
        """The path or URL in a line.

        Raises:
            DataError: there is none.
        """
        text = line.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "surrogateescape").strip("\r\n")
        if self._kind == "txt":
            return text.strip()
        if self._kind == "csv":
            cells = self._cells(text)
            name = cells[self._column] if self._column < len(cells) else ""
        else:
            name = self._of_json(text)
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{self.location} names no image in the line {text[:80]!r}.")
        return name.strip()

    def _of_json(self, text: str) -> object:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.location} has a line that is no JSON: {text[:80]!r}.") from error
        if isinstance(value, dict):
            value = next((value[name] for name in NAMES if isinstance(value.get(name), str)), None)
        return value

    def _read_first(self, line: bytes) -> None:
        text = line.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "surrogateescape")
        self._delimiter = delimiter(text)
        cells = self._cells(text.strip("\r\n"))
        known = [cell.lower() for cell in cells]
        named = [known.index(name) for name in NAMES if name in known]
        images = [at for at, cell in enumerate(cells) if is_image_name(cell) or is_url(cell)]
        if not named and not images:
            raise DataError(
                f"{self.location} does not say in which column its images are: call one of {', '.join(cells)[:80]} "
                f"{' or '.join(NAMES[:3])} in the first line."
            )
        self._header = bool(named)
        self._column = (named or images)[0]

    def _cells(self, text: str) -> list[str]:
        return [cell.strip() for row in csv.reader([text], delimiter=self._delimiter) for cell in row]
