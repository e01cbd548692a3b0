"""The parts of a report that tell of classes of pixels, of panoptic segments, and of other evaluators' numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np

from ...data.images import read_image
from ...errors import DataError
from ...inference.pixel_drawing import draw_labels, draw_segments
from ..metrics_outcome import MetricsOutcome
from ..panoptic_eval import PanopticOutcome
from ..sem_seg_eval import SUMMARY, SemSegOutcome
from .html import confusion_table, table, tiles
from .pictures import LONG_SIDE, data_uri

Outcome = SemSegOutcome | PanopticOutcome | MetricsOutcome


def section(outcome: Outcome) -> list[str]:
    """Everything about one."""
    if isinstance(outcome, SemSegOutcome):
        return _sem_seg(outcome)
    return _panoptic(outcome) if isinstance(outcome, PanopticOutcome) else _metrics(outcome)


def _metrics(outcome: MetricsOutcome) -> list[str]:
    parts = [f"<h3>{escape(outcome.title)}</h3>"]
    for task, values in outcome.metrics.items():
        main = [name for name in values if "-" not in name]
        parts.append(table(("", *main), [(task, *(values[name] for name in main))]))
        others = [(name, value) for name, value in values.items() if "-" in name]
        if others:
            parts.append(table(("", task), others))
    return parts


def _sem_seg(outcome: SemSegOutcome) -> list[str]:
    values, names = outcome.metrics, outcome.dataset.pixel_labels.names
    matrix = outcome.confusion[:-1].T  # annotated in rows
    pixels = matrix[:-1].sum(axis=1)
    share = 100 * pixels / max(pixels.sum(), 1)
    head = ["class", "share", "IoU", "accuracy"] + ["boundary IoU"] * (f"BoundaryIoU-{names[0]}" in values)
    rows = [
        (
            name, float(share[at]),
            *(values[f"{kind}-{name}"] for kind in ("IoU", "ACC", "BoundaryIoU") if f"{kind}-{name}" in values),
        )
        for at, name in enumerate(names)
    ]  # fmt: skip
    dataset = outcome.dataset

    def drawn(at: int, found: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sides = (_resized(labels, pixels) for labels in (dataset.labels(at), found))
        return tuple(draw_labels(pixels, labels, names) for labels in sides)

    return [
        tiles([(f"pixels {name}", values[name]) for name in SUMMARY]),
        "<h3>Classes of pixels</h3><p class='note'>Percent, over all pixels of the data that have a class; share: of "
        "these pixels. A dash: the class is nowhere annotated.</p>",
        table(head, rows),
        "<h3>Confusion of classes of pixels</h3><p class='note'>Row: what is annotated; column: what was found, in "
        "percent of the row's pixels.</p>",
        confusion_table(100 * matrix[:-1] / np.maximum(pixels, 1)[:, None], names, names, decimals=1),
        *_images(outcome, drawn, "accuracy {:.0%} of its pixels"),
    ]


def _panoptic(outcome: PanopticOutcome) -> list[str]:
    values, dataset = outcome.metrics, outcome.dataset
    groups = [
        (name, *(values[f"{kind}{suffix}"] for kind in ("PQ", "SQ", "RQ")))
        for name, suffix in (("all", ""), ("things", "_th"), ("stuff", "_st"))
    ]
    rows = [
        (name, "thing" if thing else "stuff", *(100 * x for x in counts.quality), counts.right, counts.false,
         counts.missed)
        for name, thing, counts in outcome.rows
    ]  # fmt: skip
    truth = dataset.panoptic.load()
    things = {number: at for at, number in enumerate(dataset.category_ids)}
    stuff = {number: at for at, number in enumerate(dataset.pixel_labels.category_ids)}

    def described(infos: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**info, "isthing": info["category_id"] in things,
             "category_id": things.get(info["category_id"], stuff.get(info["category_id"], 0))}
            for info in infos
        ]  # fmt: skip

    def drawn(at: int, found: Any, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        info = dataset.image(at)
        segments = truth.segments(truth.position(info.id, info.path.name))
        annotated = [
            {"id": number, "category_id": category}
            for number, category in zip(segments.ids.tolist(), segments.categories.tolist())
        ]
        sides = (segments.read(), annotated), found
        return tuple(
            draw_segments(
                pixels, _resized(numbers, pixels), described(infos), dataset.category_names, dataset.pixel_labels.names
            )
            for numbers, infos in sides
        )

    return [
        tiles([(name, values[name]) for name in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")]),
        "<h3>Panoptic quality</h3><p class='note'>Percent. PQ = SQ x RQ of each class, and the mean over classes; SQ: "
        "mean IoU of the segments that are right (IoU above 0.5), RQ: their F1.</p>",
        table(("", "PQ", "SQ", "RQ"), groups),
        table(("class", "", "PQ", "SQ", "RQ", "right", "false", "missed"), rows, texts=2),
        *_images(outcome, drawn, "PQ {:.2f} of the image alone"),
    ]


def _images(
    outcome: SemSegOutcome | PanopticOutcome,
    drawn: Callable[[int, Any, np.ndarray], tuple[np.ndarray, np.ndarray]],
    note: str,
) -> list[str]:
    """Annotated and found side by side, from the worst image to the best."""
    positions: dict[Hashable, int] = {outcome.dataset.image(i).id: i for i in range(len(outcome.dataset))}
    parts = ["<h3>Images, the worst first</h3>"] if outcome.images else []
    for score, image_id, found in outcome.images:
        info, text = outcome.dataset.image(positions[image_id]), note.format(score)
        try:
            pixels = read_image(info.path)
            factor = LONG_SIDE / max(pixels.shape[:2])
            size = tuple(max(1, round(side * factor)) for side in pixels.shape[1::-1])
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
            uris = [data_uri(side) for side in drawn(positions[image_id], found, pixels)]
        except DataError as error:
            parts.append(f"<div class='pair'><p>{text}</p><p class='note'>{escape(str(error))}</p></div>")
            continue
        sides = "".join(
            f"<div><span>{side}</span><img alt='{side}' src='{uri}'></div>"
            for side, uri in zip(("annotated", "found"), uris)
        )
        parts.append(
            f"<div class='pair'><p><b>{escape(info.path.name)}</b> {text}</p><div class='sides'>{sides}</div></div>"
        )
    return parts


def _resized(values: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Labels or numbers, each pixel the nearest one's, in the size of an image."""
    return cv2.resize(values, pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
