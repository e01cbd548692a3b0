"""What a benchmark leaves: a table to read, JSON and CSV for machines."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping

from ..files import write_json, write_text
from .timing import Comparison

logger = logging.getLogger(__name__)


def publish(
    comparisons: Iterable[Comparison],
    where: Mapping[str, object],
    *,
    json: str | None = None,
    csv_file: str | None = None,
) -> None:
    """Log every comparison as it comes; write all of them at the end.

    Args:
        where: see `machine`.
        json, csv_file: files to write, or None.
    """
    logger.info("%s", ", ".join(f"{name} {value}" for name, value in where.items()))
    rows = []
    for comparison in comparisons:
        for line in comparison.table():
            logger.info("%s", line)
        rows.extend(comparison.rows())
    if json:
        write_json(json, {"machine": dict(where), "rows": rows}, indent=1)
    if csv_file:
        text = io.StringIO()
        columns = list(dict.fromkeys(column for row in rows for column in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(csv_file, text.getvalue())
