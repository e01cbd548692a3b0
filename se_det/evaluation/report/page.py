"""The page: its parts in order, and the file."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ... import __version__
from ...files import write_text
from ..coco_eval import EvaluationResult
from . import pixels, sections
from .history import read_history, training_charts
from .html import table
from .style import STYLE

FILE = "report.html"

logger = logging.getLogger(__name__)


def write_report(
    folder: str | Path, outcomes: Mapping[str, EvaluationResult], *, config: str, score_threshold: float = 0.5,
    others: Mapping[str, Sequence[pixels.Outcome]] | None = None,
) -> Path:  # fmt: skip
    """Write `report.html` of an evaluation into `folder`: one file without scripts, links or anything from outside.

    Its size is bounded: of each data set at most 12 images are shown, 20 classes in the confusion matrix, 10 curves.

    Args:
        folder: of the run; training curves are those of its `metrics.json`, where there is one.
        outcomes: name of a data set -> what its evaluation found; may be empty.
        config: the run's config as YAML.
        score_threshold: for confusion, and for what is drawn.
        others: name of a data set -> what evaluators of pixels, and those that give numbers alone, found.

    Raises:
        CheckpointError: the file cannot be written.
    """
    start = time.perf_counter()
    folder = Path(folder)
    body = [f"<h1>Report of {escape(folder.absolute().name)}</h1>"]
    others = others or {}
    for name in dict.fromkeys((*others, *outcomes)):
        body.append(f"<h2 class='set'>{escape(name)}</h2>")
        for outcome in others.get(name, ()):
            body += pixels.section(outcome)
        if name in outcomes:
            body += sections.evaluation(outcomes[name], score_threshold)
    if not outcomes and not others:
        body.append("<p class='note'>Nothing was evaluated in this run.</p>")
    charts = training_charts(read_history(folder / "metrics.json"))
    body.append("<h2>Training</h2>")
    body.append(
        f"<div class='charts'>{''.join(charts)}</div>" if charts else "<p class='note'>No metrics.json here.</p>"
    )
    body.append("<h2>Data and config</h2>")
    if outcomes:
        body.append(_data_table(outcomes))
    body.append(f"<details><summary>Config</summary><pre>{escape(config)}</pre></details>")
    body.append(f"<footer>se_det {escape(__version__)}, {time.strftime('%Y-%m-%d %H:%M')}</footer>")
    path = folder / FILE
    write_text(path, document(f"Report of {folder.absolute().name}", body))
    logger.info("Wrote %s (%.1f s).", path, time.perf_counter() - start)
    return path


def document(title: str, body: Sequence[str]) -> str:
    """A whole page of these pieces of HTML."""
    # The policy makes a browser refuse whatever a mistake of ours might let in: scripts, and anything from a network.
    return "\n".join(
        (
            "<!DOCTYPE html>",
            "<html lang='en'><head><meta charset='utf-8'>",
            "<meta http-equiv='Content-Security-Policy' "
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>",
            *body,
            "</main></body></html>",
            "",
        )
    )


def _data_table(outcomes: Mapping[str, EvaluationResult]) -> str:
    rows = [
        (
            name,
            str(outcome.dataset.json_path),
            len(outcome.dataset),
            sum(not a["iscrowd"] for a in outcome.truth.annotations),
            sum(a["iscrowd"] for a in outcome.truth.annotations),
            len(outcome.dataset.category_ids),
            len(outcome.results),
        )
        for name, outcome in outcomes.items()
    ]
    return table(("set", "annotations", "images", "objects", "crowds", "classes", "detections"), rows, texts=2)
