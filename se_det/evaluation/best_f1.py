"""The score from which to show detections of a class: that of its best F1 at IoU 0.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .coco_protocol import Outcomes


@dataclass(frozen=True)
class OperatingPoint:
    """A score, and what the detections are worth that score as much and more; all between 0 and 1."""

    score: float
    f1: float
    precision: float
    recall: float


def best_f1(outcomes: Outcomes) -> list[OperatingPoint | None]:
    """The operating point of each class with the highest F1 of all its scores; of equal ones the highest score.

    None for a class without objects, and for one of which nothing is found: there is nothing to choose by.
    """
    points: list[OperatingPoint | None] = []
    order = np.lexsort((-outcomes.score, outcomes.label))
    bounds = np.searchsorted(outcomes.label[order], np.arange(len(outcomes.positives) + 1))
    for first, last, objects in zip(bounds[:-1], bounds[1:], outcomes.positives.tolist()):
        rows = order[first:last]
        score = outcomes.score[rows]
        # A threshold lets all detections of its score pass, so only the last of equal ones is a place to cut.
        ends = np.flatnonzero(np.append(score[1:] < score[:-1], True)) if len(rows) else np.zeros(0, np.int64)
        right, counted = np.cumsum(outcomes.right[rows])[ends], np.cumsum(outcomes.counted[rows])[ends]
        if not objects or not right.any():
            points.append(None)
            continue
        # 2 P R / (P + R) in whole numbers: equal ones are equal as floats, too.
        f1 = 2 * right / (counted + objects)
        best = int(np.argmax(f1))
        points.append(
            OperatingPoint(
                score=float(score[ends[best]]),
                f1=float(f1[best]),
                precision=float(right[best] / counted[best]),
                recall=float(right[best] / objects),
            )
        )
    return points


def as_metadata(labels: Sequence[str], points: Sequence[OperatingPoint | None]) -> dict[str, dict]:
    """What a checkpoint keeps: `thresholds`, the score (or None) by the class's name, and `threshold_metrics`, what it
    was worth."""
    worth = {
        label: point and {"f1": point.f1, "precision": point.precision, "recall": point.recall}
        for label, point in zip(labels, points)
    }
    return {
        "thresholds": {label: point and point.score for label, point in zip(labels, points)},
        "threshold_metrics": worth,
    }
