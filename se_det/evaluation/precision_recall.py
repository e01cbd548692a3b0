"""Precision-recall curves at the COCO protocol's 101 recalls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PrecisionRecall:
    """Curves of one task: precision in 0..1 at recalls 0, 0.01, ... 1.

    Attributes:
        overall: "IoU 0.50", "IoU 0.75" and "mean of IoU 0.50 to 0.95" -> float64 (101,), the mean over the classes that
            have objects; empty without any.
        per_class: float64 (classes, 101) at IoU 0.5; nan for a class without objects.
    """

    overall: dict[str, np.ndarray]
    per_class: np.ndarray


def precision_recall(precision: np.ndarray) -> PrecisionRecall:
    """Curves of the protocol's array.

    Args:
        precision: (10, 101, classes), from `coco_scores`: IoU thresholds 0.5, 0.55, ... 0.95; -1 for a class without
            objects.
    """
    known = (precision > -1).all(axis=(0, 1))
    overall = {}
    if known.any():
        by_threshold = precision[:, :, known].mean(axis=2)
        overall = {
            "IoU 0.50": by_threshold[0],
            "IoU 0.75": by_threshold[5],
            "mean of IoU 0.50 to 0.95": by_threshold.mean(axis=0),
        }
    return PrecisionRecall(overall=overall, per_class=np.where(known, precision[0], np.nan).T)
