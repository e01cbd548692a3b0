"""annotations.xml: CVAT for images 1.1, for "Upload annotations" in a task with the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from pycocotools import mask as mask_tools

from ..json_list import WholeText
from .protocol import Detected


class CvatFile(WholeText):
    """What is drawn: masks where there are any, else boxes; `source` says that a program made them.

    Args:
        folder: of the file.
        categories: of the classes.
    """

    names = ("annotations.xml",)
    videos = False

    def __init__(self, folder: Path, categories: Sequence[dict[str, Any]]) -> None:
        labels = "".join(
            f"<label><name>{escape(_clean(category['name']))}</name><type>any</type></label>" for category in categories
        )
        head = (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
            f"  <meta><task><labels>{labels}</labels></task></meta>\n"
        )
        super().__init__(folder / self.names[0], head, "</annotations>\n")
        self.count = self._images = 0
        self._labels = {category["id"]: quoteattr(_clean(category["name"])) for category in categories}

    def __enter__(self) -> CvatFile:
        return self

    def add(self, image: Detected) -> None:
        """Append an image."""
        shapes = [self._shape(result) for result, shown in zip(image.results, image.shown) if shown]
        lines = "".join(f"    {shape}\n" for shape in shapes if shape)
        self.write(
            f'  <image id="{self._images}" name={quoteattr(_clean(image.name))} width="{image.width}" '
            f'height="{image.height}">\n{lines}  </image>\n'
        )
        self._images += 1
        self.count += sum(map(bool, shapes))

    def _shape(self, result: dict[str, Any]) -> str:
        common = f'label={self._labels[result["category_id"]]} source="auto" occluded="0" z_order="0"'
        if "segmentation" not in result:
            x, y, width, height = result["bbox"]
            corners = f'xtl="{x:.2f}" ytl="{y:.2f}" xbr="{x + width:.2f}" ybr="{y + height:.2f}"'
            return f"<box {common} {corners}/>"
        mask = mask_tools.decode(result["segmentation"]).astype(bool)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return ""
        top, left = int(rows[0]), int(columns[0])
        window = mask[top : rows[-1] + 1, left : columns[-1] + 1]
        place = f'left="{left}" top="{top}" width="{window.shape[1]}" height="{window.shape[0]}"'
        return f'<mask {common} rle="{", ".join(map(str, runs(window)))}" {place}/>'


def runs(window: np.ndarray) -> list[int]:
    """Lengths of the runs of a bool mask, row by row, the first of them of what is outside it."""
    flat = window.ravel()
    edges = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [len(flat)]])
    lengths = np.diff(edges).tolist()
    return [0, *lengths] if flat[0] else lengths


def _clean(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(char if char.isprintable() and not 0xD800 <= ord(char) < 0xE000 else "?" for char in text)
