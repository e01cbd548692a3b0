"""Rows of a CSV, with their lines' numbers; commas, semicolons or tabs, quoted or not."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from ...files import open_regular_file
from .reading import read_text

BEGINNING = 2**16
DELIMITERS = (",", ";", "\t")


def beginning(path: Path) -> list[list[str]]:
    """The first rows of a file, none when it is no text; the last one may be a part."""
    try:
        with open_regular_file(path) as file:
            data = file.read(BEGINNING)
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "ignore")
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter(text)))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    return rows[:-1] if len(data) == BEGINNING else rows


def delimiter(text: str) -> str:
    """What parts the cells of a text's first lines."""
    lines = [line for line in text[:BEGINNING].splitlines() if line.strip()][:20]
    return max(DELIMITERS, key=lambda mark: sum(line.count(mark) for line in lines))


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with the number of their (last) line; blanks around cells are left out.

    Raises:
        DataError: the file cannot be read or is no CSV.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(text), skipinitialspace=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}. Correct the line.") from error


def shorten_row(row: list[str]) -> str:
    """A row for a message."""
    text = ",".join(row)
    return repr(text if len(text) <= 80 else text[:77] + "...")
