"""Plots as PNG, drawn by matplotlib, which is imported when one is asked for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .fonts import font_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
WIDTH = 960  # px
LINES_HEIGHT, SIZES_HEIGHT, BAR_HEIGHT = 400, 330, 17
MAX_LEGEND, MAX_CLASSES = 15, 100
BINS = 2.0 ** np.arange(0, 11.5, 0.5)  # px, of box sizes
SIZES = (("small", 0, 32), ("medium", 32, 96), ("large", 96, np.inf))  # COCO's, px


def plot_lines(
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] = (0.0, 1.0),
    bold: str = "",
) -> bytes:
    """Plot named series over 0, 1, 2, ...

    Args:
        series: (name, values), all of one length; drawn in this order. The legend names the first 15.
        bold: the series that is drawn black and thick, and always named.

    Returns:
        A PNG of 960 x 400 px.
    """
    figure = _figure(LINES_HEIGHT)
    axes = figure.subplots()
    lines = []
    for name, values in series:
        style = {"color": "black", "linewidth": 2} if name == bold else {"linewidth": 1.2}
        lines.append((name, *axes.plot(np.clip(values, *y_range), **style)))
    shown = [line for number, line in enumerate(lines) if number < MAX_LEGEND or line[0] == bold]
    legend = figure.legend([line for _, line in shown], [" "] * len(shown), loc="outside right upper", frameon=False)
    names, fonts = _drawable([_shortened(name, 18) for name, _ in shown])
    for text, name in zip(legend.get_texts(), names):
        text.set(text=name, **fonts)  # given as a label, a name that begins with "_" would be left out
    axes.set(xlabel=x_label, ylabel=y_label, ylim=y_range)
    axes.margins(x=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color="0.85")
    (title,), fonts = _drawable([title])
    axes.set_title(title, loc="left", **fonts)
    return _png(figure)


def plot_points(points: Sequence[tuple[str, float, float, float]], *, title: str, x_label: str, y_label: str) -> bytes:
    """Plot named points with the spread of their heights.

    Args:
        points: (name, x, y, spread of y); one without a spread has 0.

    Returns:
        A PNG of 960 x 400 px.
    """
    figure = _figure(LINES_HEIGHT)
    axes = figure.subplots()
    names, fonts = _drawable([_shortened(name, 24) for name, *_ in points])
    for name, (_, x, y, spread) in zip(names, points):
        axes.errorbar([x], [y], yerr=[spread] if spread else None, fmt="o", capsize=4)
        axes.annotate(name, (x, y), xytext=(7, 4), textcoords="offset points", **fonts)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.margins(x=0.15, y=0.15)
    axes.grid(color="0.9")
    (title,), fonts = _drawable([title])
    axes.set_title(title, loc="left", **fonts)
    return _png(figure)


def plot_histograms(
    sides: np.ndarray, classes: Sequence[tuple[str, int]], *, title: str, anchors: Sequence[float] = ()
) -> bytes:
    """Plot box sizes (on a logarithmic scale) above a bar for each class, the most frequent first.

    Args:
        sides: square roots of box areas, px.
        classes: (name, annotations); of more than 100 the first 100 are drawn, and the number of others is given.
        title: written on top.
        anchors: square roots of their areas, px, drawn as dotted lines.

    Returns:
        A PNG, 960 px wide.
    """
    shown = sorted(classes, key=lambda pair: -pair[1])[:MAX_CLASSES]
    heights = [SIZES_HEIGHT, 60 + BAR_HEIGHT * max(len(shown), 1)]
    figure = _figure(sum(heights))
    above, below = figure.subplots(2, height_ratios=heights)
    (title,), fonts = _drawable([title if len(title) < 110 else f"…{title[-109:]}"])
    figure.suptitle(title, fontsize=11, **fonts)
    _plot_sizes(above, sides, anchors)
    _plot_classes(below, shown, len(classes) - len(shown))
    return _png(figure)


def _plot_sizes(axes: Axes, sides: np.ndarray, anchors: Sequence[float]) -> None:
    # Below 1 px and above the largest edge belong to the outer bars.
    counts, _ = np.histogram(np.clip(sides, BINS[0], BINS[-1] * 0.999), BINS)
    axes.set_xscale("log", base=2)
    axes.bar(BINS[:-1], counts, np.diff(BINS), align="edge", edgecolor="white")
    axes.set(xlim=(BINS[0], BINS[-1]), ylim=(0, max(counts.max() * 1.06, 1)), axisbelow=True)
    axes.set_xlabel("boxes: square root of the area, px" + ("; dotted: anchors" if anchors else ""))
    axes.grid(axis="y", color="0.85")
    ticks = [1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024]
    axes.set_xticks(ticks, ticks)
    axes.yaxis.get_major_locator().set_params(integer=True)
    for name, low, high in SIZES:
        middle = (max(low, BINS[0]) * min(high, BINS[-1])) ** 0.5
        text = f"{name}: {np.count_nonzero((sides >= low) & (sides < high))}"
        axes.text(middle, 1.02, text, ha="center", transform=axes.get_xaxis_transform())
        if low:
            axes.axvline(low, color="tab:red")
    for side in anchors:
        axes.axvline(side, color="black", linestyle=":", linewidth=1.4)


def _plot_classes(axes: Axes, classes: Sequence[tuple[str, int]], others: int) -> None:
    places = np.arange(len(classes))
    bars = axes.barh(places, [count for _, count in classes])
    axes.bar_label(bars, padding=4)
    names, fonts = _drawable([_shortened(name, 24) for name, _ in classes])
    axes.set_yticks(places, names, **fonts)
    axes.set(ylim=(max(len(classes), 1) - 0.4, -0.6), xticks=[])
    axes.tick_params(left=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title("annotations of each class" + (f", and {others} more classes" if others else ""), loc="left")


def _figure(height: int) -> Figure:
    from matplotlib.figure import Figure  # not pyplot, which opens windows and keeps what it drew

    return Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _drawable(texts: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The texts with "?" for characters that no font here has, and the fonts as matplotlib takes them."""
    from matplotlib.font_manager import FontProperties, fontManager, get_font

    default = fontManager.findfont(FontProperties())
    files: dict[str, str] = {}  # of each character; empty for none
    for char in {char for text in texts for char in text}:
        found = default if get_font(default).get_char_index(ord(char)) else font_of(char) or ""
        files[char] = str(found) if char.isprintable() else ""
    used = list(dict.fromkeys([default, *filter(None, files.values())]))
    for path in used:
        if all(font.fname != path for font in fontManager.ttflist):
            fontManager.addfont(path)
    families = {path: next(font.name for font in fontManager.ttflist if font.fname == path) for path in used}
    clean = ["".join(char if files[char] else "?" for char in text) for text in texts]
    # Between two dollars stands mathematics for matplotlib.
    return [text.replace("$", "\\$") for text in clean], {"fontfamily": list(families.values())}


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
