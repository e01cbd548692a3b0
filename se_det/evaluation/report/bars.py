"""Histograms as inline SVG, with lines that mark values of interest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from .svg import BOTTOM, COLORS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, number_text, ticks

BAR = "#9db7cf"


def bar_chart(
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    x: str,
    y: str,
    marks: Mapping[str, Sequence[float]] | None = None,
    logarithmic: bool = False,
) -> str:
    """A histogram of bars from each edge to the next.

    Args:
        edges: one more than there are counts, rising.
        x: what the axis means.
        y: likewise.
        marks: name -> values on the x axis, a dashed line each; those beyond the edges are named and not drawn.
        logarithmic: of the x axis, with powers of two written below it.
    """
    scale = math.log2 if logarithmic else float
    low, high = scale(edges[0]), scale(edges[-1])
    top = max(*counts, 1) * 1.05

    def across(value: float) -> float:
        return LEFT + (scale(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def down(count: float) -> float:
        return HEIGHT - BOTTOM - count / top * (HEIGHT - TOP - BOTTOM)

    parts = [f"<figure><svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(y)} over {escape(x)}'>"]
    for tick in ticks(0, top):
        if tick == int(tick):
            parts.append(
                f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{down(tick):.1f}' y2='{down(tick):.1f}'/>"
                f"<text x='{LEFT - 6}' y='{down(tick):.1f}' dy='4' text-anchor='end'>{number_text(tick)}</text>"
            )
    for left, right, count in zip(edges, edges[1:], counts):
        if count:
            # One that is rare among many is to be seen all the same.
            height = max(HEIGHT - BOTTOM - down(count), 1)
            parts.append(
                f"<rect x='{across(left):.1f}' y='{HEIGHT - BOTTOM - height:.1f}' "
                f"width='{max(across(right) - across(left) - 1, 1):.1f}' height='{height:.1f}' fill='{BAR}'>"
                f"<title>{number_text(left)} to {number_text(right)}: {number_text(count)}</title></rect>"
            )
    below = [2.0**k for k in range(math.ceil(low), math.floor(high) + 1)] if logarithmic else ticks(low, high)
    for tick in below:
        if across(tick) < WIDTH - RIGHT:  # beyond, there is no room for the whole number
            parts.append(
                f"<text x='{across(tick):.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{number_text(tick)}"
                "</text>"
            )
    parts.append(f"<text x='{(WIDTH + LEFT) / 2}' y='{HEIGHT - 6}' text-anchor='middle'>{escape(x)}</text>")
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(f"<text transform='translate(13,{middle}) rotate(-90)' text-anchor='middle'>{escape(y)}</text>")
    legend = []
    for number, (name, values) in enumerate((marks or {}).items()):
        color = COLORS[number % len(COLORS)]
        for value in values:
            if edges[0] <= value <= edges[-1]:
                place = f"x1='{across(value):.1f}' x2='{across(value):.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}'"
                parts.append(f"<line {place} stroke='{color}' stroke-width='2' stroke-dasharray='5 3'/>")
        listed = ", ".join(map(number_text, values))
        legend.append(f"<span><i style='background:{color}'></i>{escape(name)}: {listed}</span>")
    return "".join(parts) + f"</svg><figcaption>{''.join(legend)}</figcaption></figure>"
