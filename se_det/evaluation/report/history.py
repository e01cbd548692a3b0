"""Training curves of a run's metrics.json."""

from __future__ import annotations

import json
from pathlib import Path

from .svg import COLORS, line_chart

LARGEST = 1e100  # of what can be drawn


def read_history(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Name -> (step, value) of every number in a file of one JSON object a line; lines that are none are left out."""
    lines: dict[str, list[tuple[float, float]]] = {}
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return lines
    for line in text.splitlines():
        try:
            values = json.loads(line)
            step = float(values.pop("iteration"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        for name, value in values.items() if abs(step) < LARGEST else ():
            # Written so that nan, infinity and whole numbers beyond any float are left out.
            if isinstance(value, (int, float)) and abs(value) < LARGEST:
                lines.setdefault(name, []).append((step, float(value)))
    return lines


def training_charts(history: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Losses, learning rate and AP over steps; where the losses were computed on validation data too, each of them
    beside it."""
    losses = {name: line for name, line in history.items() if "loss" in name and "/" not in name}
    # With several sets "set/task/AP"; the first names are the first set's.
    aps = {name: line for name, line in history.items() if name.rsplit("/", 1)[-1] in ("AP", "AP50") and "/" in name}
    charts = []
    for lines, label in ((losses, "loss"), (aps, "AP")):
        chosen = dict(list(lines.items())[: len(COLORS)])
        if chosen:
            charts.append(line_chart(chosen, x="step", y=label))
    for name, line in losses.items():
        beside = {
            key.removesuffix(f"/{name}"): other for key, other in history.items() if key.endswith(f"validation/{name}")
        }
        if beside:
            shown = {"training": line, **dict(list(beside.items())[: len(COLORS) - 1])}
            charts.append(line_chart(shown, x="step", y=name))
    if "lr" in history:
        charts.append(line_chart({"lr": history["lr"]}, x="step", y="learning rate"))
    return charts
