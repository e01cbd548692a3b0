"""The preview as one picture: samples side by side, above the sizes of objects and the classes."""

from __future__ import annotations

import cv2
import numpy as np

from ...plots import plot_histograms
from .facts import Preview

COLUMNS, CELL, GAP = 3, 312, 6  # px; three cells and four gaps are as wide as a plot


def preview_sheet(preview: Preview) -> bytes:
    """A PNG, 960 px wide."""
    names = preview.class_names
    rows = []
    for first in range(0, len(preview.samples), COLUMNS):
        pictures = [sample.picture(names, CELL) for sample in preview.samples[first : first + COLUMNS]]
        row = np.full((max(p.shape[0] for p in pictures) + GAP, COLUMNS * (CELL + GAP) + GAP, 3), 255, np.uint8)
        for column, picture in enumerate(pictures):
            left = GAP + column * (CELL + GAP) + (CELL - picture.shape[1]) // 2
            row[GAP : GAP + picture.shape[0], left : left + picture.shape[1]] = picture
        rows.append(row)
    trained = [part for part in preview.parts if part.use == "trained on"]
    counts = sum(part.objects.per_class(len(names)) for part in trained)
    plots = plot_histograms(
        np.sqrt(preview.boxes.prod(1)),
        list(zip(names, counts.tolist())),
        title=f"{preview.title}: objects to train on",
        anchors=sorted({size for level in preview.levels for size in level.sizes}),
    )
    below = cv2.imdecode(np.frombuffer(plots, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".png", np.concatenate([*rows, below]))[1].tobytes()
