"""Line charts as inline SVG, with a legend in HTML so that it wraps on narrow screens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLORS = ("#1f6fb4", "#d95f02", "#1b8a5a", "#a6399b", "#b8860b", "#c0392b", "#4b5bd6", "#5d6d7e", "#00838f", "#7b4b2a")
WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 10, 40
POINTS = 300  # per line: what a screen shows

Line = Sequence[tuple[float, float]]


def line_chart(
    lines: Mapping[str, Line], *, x: str, y: str, x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """A chart of named lines of (x, y) points; points that are not finite are left out.

    Args:
        lines: name -> points in the order of x. At most as many as there are colours are told apart.
        x: what the axis means.
        y: likewise.
        x_range: of the axis; None fits it to the points.
        y_range: likewise.
    """
    finite = {n: _thinned([p for p in line if all(map(math.isfinite, p))]) for n, line in lines.items()}
    everything = [point for line in finite.values() for point in line]
    if not everything:
        return "<p class='note'>Nothing to draw.</p>"
    low_x, high_x = x_range or _span([p[0] for p in everything])
    low_y, high_y = y_range or _span([p[1] for p in everything])

    def place(point: tuple[float, float]) -> str:
        across = LEFT + (point[0] - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (point[1] - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f},{down:.1f}"

    parts = [f"<figure><svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(y)} over {escape(x)}'>"]
    for tick in ticks(low_y, high_y):
        down = place((low_x, tick)).split(",")[1]
        parts.append(f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{down}' y2='{down}'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{down}' dy='4' text-anchor='end'>{number_text(tick)}</text>")
    for tick in ticks(low_x, high_x):
        across = place((tick, low_y)).split(",")[0]
        parts.append(f"<line class='grid' y1='{TOP}' y2='{HEIGHT - BOTTOM}' x1='{across}' x2='{across}'/>")
        parts.append(f"<text x='{across}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{number_text(tick)}</text>")
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(f"<text x='{(WIDTH + LEFT) / 2}' y='{HEIGHT - 6}' text-anchor='middle'>{escape(x)}</text>")
    parts.append(f"<text transform='translate(13,{middle}) rotate(-90)' text-anchor='middle'>{escape(y)}</text>")
    legend = []
    for number, (name, line) in enumerate(finite.items()):
        color = COLORS[number % len(COLORS)]
        if len(line) == 1:
            across, down = place(line[0]).split(",")
            parts.append(f"<circle cx='{across}' cy='{down}' r='4' fill='{color}'/>")
        elif line:
            parts.append(f"<polyline points='{' '.join(map(place, line))}' stroke='{color}'/>")
        legend.append(f"<span><i style='background:{color}'></i>{escape(name)}</span>")
    return "".join(parts) + f"</svg><figcaption>{''.join(legend)}</figcaption></figure>"


def _thinned(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about `POINTS` points: the mean of each run of neighbours."""
    run = -(-len(line) // POINTS)
    if run < 2:
        return line
    pieces = [line[start : start + run] for start in range(0, len(line), run)]
    return [tuple(sum(values) / len(piece) for values in zip(*piece)) for piece in pieces]


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.04 or max(abs(high) * 0.1, 1e-9)
    return (0.0 if 0 <= low < high / 2 else low - margin), high + margin


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [step * k for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number_text(value: float) -> str:
    """About six characters, which is what there is room for: 0.75, 7.5e-4, 2e5."""
    if value == 0 or 0.01 <= abs(value) < 1e5:
        return f"{value:.5g}"
    digits, power = f"{value:.1e}".split("e")
    return f"{float(digits):g}e{int(power)}"
