"""What plots show, read from the picture or from matplotlib's objects."""

from __future__ import annotations

import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest

from se_det import plots
from se_det.fonts import font_of

NAMES = ["_first", "собака", "$a$ or $b", "a\nb", "\ud800", "dog", "犬" * 40, "x" * 40]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    drawn = []
    make = plots._figure
    monkeypatch.setattr(plots, "_figure", lambda height: drawn.append(make(height)) or drawn[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield drawn


def picture(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def shown(name: str, most: int) -> str:
    name = name if len(name) <= most else name[: most - 1] + "…"
    return "".join(c if c.isprintable() and (c.isascii() or font_of(c)) else "?" for c in name).replace("$", "\\$")


def test_lines_are_where_the_values_are(figures):
    lines = [("x", [0.0] * 50), ("all", [0.5] * 50), ("y", [2.0] * 50)]
    pixels = picture(plots.plot_lines(lines, title="t", x_label="a", y_label="b", bold="all"))
    assert pixels.shape == (400, 960, 3)
    (axes,) = figures[0].axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.0] * 50, [0.5] * 50, [1.0] * 50]  # kept inside
    box = axes.get_window_extent()
    middle = 400 - (box.y0 + box.y1) / 2
    black = (pixels[:, int(box.x0 + box.width / 2)] < 60).all(-1).nonzero()[0]
    inside = [row for row in black if abs(row - middle) < box.height / 2 - 5]
    assert inside and all(abs(row - middle) <= 2 for row in inside)


def test_the_legend_names_any_name(figures):
    series = [(name, [0.1, 0.2]) for name in [*NAMES, *map(str, range(20)), "all", "last"]]
    plots.plot_lines(series, title="$犬", x_label="", y_label="", bold="all")
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[:8] == [shown(name, 18) for name in NAMES] and texts[-1] == "all" and len(texts) == 16


def test_histograms_count_sizes_and_classes(figures):
    classes = [(name, count) for count, name in enumerate(NAMES)]
    pixels = picture(plots.plot_histograms(np.array([0.5, 10, 40, 96, 5000]), classes, title="t" * 200))
    assert pixels.shape[1:] == (960, 3)
    above, below = figures[0].axes
    assert [text.get_text() for text in above.texts] == ["small: 2", "medium: 1", "large: 2"]
    bars = {round(bar.get_x(), 2): bar.get_height() for bar in above.patches if bar.get_height()}
    assert bars == {1.0: 1, 8.0: 1, 32.0: 1, 90.51: 1, 1448.15: 1}
    assert [bar.get_width() for bar in below.patches] == list(range(7, -1, -1))
    assert [label.get_text() for label in below.get_yticklabels()] == [shown(name, 24) for name in NAMES[::-1]]


def test_histograms_of_nothing_and_of_many_classes(figures):
    assert picture(plots.plot_histograms(np.zeros(0), [], title="")).shape[1] == 960
    many = picture(plots.plot_histograms(np.ones(3), [(str(i), i) for i in range(1203)], title=""))
    assert many.shape[0] < 2300 and figures[1].axes[1].get_title(loc="left").endswith("and 1103 more classes")


def test_matplotlib_is_imported_only_for_a_plot():
    code = "import sys, se_det.plots, se_det.cli.check_data; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
