"""What a study says: a table as Markdown and JSON, a plot of the metric over the cost, and a page."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from .. import __version__
from ..evaluation.report.page import document
from ..evaluation.report.sections import table
from ..files import atomic_write, write_json, write_text
from ..plots import plot_points
from .plan import Run, Study
from .results import Row, read_results

TABLE, VALUES, PLOT, PAGE = "table.md", "study.json", "plot.png", "report.html"

logger = logging.getLogger(__name__)


def write_study_report(study: Study, output: str | Path, failed: Mapping[Run, str] | None = None) -> list[Row]:
    """Write `table.md`, `study.json`, `plot.png` and `report.html` of what is done into the study's folder.

    Args:
        output: the study's folder.
        failed: the runs that failed, and why.

    Raises:
        CheckpointError: a result cannot be read, or a file not be written.
    """
    output, failed = Path(output), failed or {}
    rows = read_results(study, output)
    head, cells = _head(study), [_cells(study, row) for row in rows]
    missing = [f"{row.name}, seed {seed}" for row in rows for seed in row.missing]
    notes = [f"{run.name} failed: {why}" for run, why in failed.items()]
    if missing:
        notes.append(f"Not done: {'; '.join(missing)}.")
    write_text(output / TABLE, _markdown(study, head, cells, notes))
    write_json(output / VALUES, {"title": study.title, "metric": study.metric, "rows": [asdict(row) for row in rows]},
               indent=1)  # fmt: skip
    plot = _plot(study, rows)
    if plot is not None:
        atomic_write(output / PLOT, lambda file: file.write(plot))
    write_text(output / PAGE, _page(study, head, cells, notes, plot))
    for line in [" | ".join(head), *(" | ".join(row) for row in cells), *notes]:
        logger.info("%s", line)
    logger.info("Wrote %s and %s.", output / TABLE, output / PAGE)
    return rows


def _head(study: Study) -> list[str]:
    return ["row", study.metric, "spread", "runs", f"difference to {next(iter(study.rows))}", *study.also, "s a step",
            "memory, MiB", "M parameters", "G multiply-adds"]  # fmt: skip


def _cells(study: Study, row: Row) -> list[str]:
    difference = ""
    if row.difference is not None:
        half = row.difference.half_width
        difference = f"{row.difference.mean:+.2f}" + ("" if half is None else f" ± {half:.2f}")
        difference += " *" if row.difference.excludes_zero else ""
    return [
        row.name,
        _number(row.mean, ".2f"),
        _number(row.spread, ".2f"),
        str(len(row.values)),
        difference,
        *(_number(row.also.get(name), ".2f") for name in study.also),
        _number(row.step_seconds, ".3f"),
        _number(row.memory_mib, ".0f"),
        _number(row.parameters, ".3f", 1e6),
        _number(row.multiply_adds, ".3f", 1e9),
    ]


def _number(value: float | None, how: str, unit: float = 1) -> str:
    return "" if value is None else format(value / unit, how)


def _markdown(study: Study, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    lines = [f"# {study.title}", "", *([study.about, ""] if study.about else [])]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    lines += ["", LEGEND, *(f"\n{note}" for note in notes)]
    return "\n".join(lines) + "\n"


LEGEND = (
    "Spread is the standard deviation over seeds. A difference is the mean over the seeds of both rows, with its 95 % "
    "confidence interval (Student's t); * where that leaves out zero. The metric is of the last weights, not the best."
)


def _plot(study: Study, rows: Sequence[Row]) -> bytes | None:
    known = [row for row in rows if row.mean is not None and row.multiply_adds is not None]
    if not known:
        return None
    points = [(row.name, row.multiply_adds / 1e9, row.mean, row.spread or 0.0) for row in known]
    return plot_points(points, title=study.title, x_label="G multiply-adds of an image", y_label=study.metric)


def _page(
    study: Study, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], plot: bytes | None
) -> str:
    body = [f"<h1>{escape(study.title)}</h1>", f"<p>{escape(study.about)}</p>", table(head, rows)]
    body.append(f"<p class='note'>{escape(LEGEND)}</p>")
    body += [f"<p>{escape(note)}</p>" for note in notes]
    if plot is not None:
        data = base64.b64encode(plot).decode("ascii")
        body.append(f"<figure><img alt='{escape(study.metric)} over cost' src='data:image/png;base64,{data}'></figure>")
    body.append("<h2>Keys of the rows</h2>")
    body.append(table(("row", "keys"), [(name, ", ".join(f"{k} {v}" for k, v in keys.items()))
                                        for name, keys in study.rows.items()], texts=2))  # fmt: skip
    body.append(f"<footer>se_det {escape(__version__)}, {time.strftime('%Y-%m-%d %H:%M')}</footer>")
    return document(study.title, body)
