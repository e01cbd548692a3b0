"""Pieces of HTML: tables, tiles of numbers, matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

SHOWN_CLASSES = 40  # of a matrix


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, texts: int = 1) -> str:
    """A table that scrolls by itself; the first `texts` columns are words. Everything is escaped."""
    lines = []
    for tag, row in [("th", head), *(("td", row) for row in rows)]:
        cells = (
            f"<{tag}{' class=t' if number < texts else ''}>{escape(as_text(value))}</{tag}>"
            for number, value in enumerate(row)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class='scroll'><table><thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody></table></div>"


def as_text(value: object) -> str:
    """A number with one decimal, a dash for nan, anything else as it is."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.1f}"
    return str(value)


def tiles(values: Iterable[tuple[str, float]]) -> str:
    """Names with large numbers, side by side."""
    inner = "".join(f"<div><b>{as_text(value)}</b><span>{escape(name)}</span></div>" for name, value in values)
    return f"<div class='tiles'>{inner}</div>"


def confusion_table(shares: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, decimals: int) -> str:
    """A matrix of percent, coloured by it; of more classes than `SHOWN_CLASSES` the first ones.

    Args:
        shares: (len(rows), len(columns)).
    """
    rows, columns = rows[:SHOWN_CLASSES], columns[:SHOWN_CLASSES]
    head = "".join(f"<th><span>{escape(name)}</span></th>" for name in ("", *columns))
    body = []
    for at, name in enumerate(rows):
        cells = []
        for column in range(len(columns)):
            share = shares[at, column]
            color = "31,111,180" if at == column else "217,95,2"
            style = f" style='background:rgba({color},{0.1 + 0.007 * share:.2f})'" if share >= 0.05 else ""
            cells.append(f"<td{style}>{f'{share:.{decimals}f}' if share >= 0.05 else ''}</td>")
        body.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    inner = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f"<div class='scroll matrix'><table>{inner}</table></div>"
