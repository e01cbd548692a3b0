"""Error types after TIDE: what a detector gets wrong, and how much AP50 each type costs.

Bolya, Foley, Hays, Hoffman: TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020
(arXiv 2008.08115), sections 2.2 and 2.3, with its thresholds: 0.5 for a detection, 0.1 for background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .coco_protocol import RECALLS
from .overlaps import ImageOverlaps, match, same_class

FOREGROUND, BACKGROUND = 0.5, 0.1
# kind: what it is.
ERROR_TYPES = {
    "classification": "an object found under the wrong class",
    "localisation": "an object of the right class found, but by an inexact box or mask",
    "both": "near an object, of the wrong class and inexact",
    "duplicate": "an object found once more",
    "background": "nothing annotated is there",
    "missed": "an object that nothing of the above explains was not found",
}


@dataclass(frozen=True)
class ErrorTypes:
    """What `error_types` found.

    Attributes:
        ap50: AP at IoU 0.5 in percent, nan without objects; that of the COCO protocol.
        counts: kind -> how many detections, or objects for "missed".
        losses: kind -> points of AP50 that fixing this kind alone would gain.
    """

    ap50: float
    counts: dict[str, int]
    losses: dict[str, float]


def error_types(images: Sequence[ImageOverlaps], num_classes: int) -> ErrorTypes:
    """Classify the errors of a detector, and compute what each kind costs.

    A false positive gets the first kind that applies, in the order of the authors' program: localisation (0.1 <= IoU <
    0.5 with its class), classification (IoU >= 0.5 with another class), duplicate (IoU >= 0.5 with its class),
    background (IoU < 0.1 with everything), both. An unmatched object is missed unless a classification or
    localisation error has it as its target. Fixing means: of the classification and localisation errors with the same
    unmatched object as target, the one with the highest score becomes a true positive and the others are removed;
    both, duplicate and background errors are removed; missed objects are not counted (a class without any left counts
    as 100). Crowds are ignored, except that a detection in a crowd of its class is no error.

    Args:
        images: from `image_overlaps`.
        num_classes: of the data set; AP50 is the mean over those with objects.
    """
    positives = np.zeros(num_classes, np.int64)
    missed = np.zeros(num_classes, np.int64)
    parts = []
    for image in images:
        part, unexplained = _sort_errors(image)
        parts.append(part)
        np.add.at(positives, image.truth_classes[~image.crowd], 1)
        np.add.at(missed, image.truth_classes[unexplained], 1)
    scores, classes, kinds, fixed_classes, fixable = (np.concatenate(c) for c in zip(*parts)) if parts else _empty()

    def mean_ap(kept: np.ndarray, of: np.ndarray, right: np.ndarray, counted: np.ndarray) -> float:
        order = np.argsort(-scores[kept], kind="stable")
        of, right = of[kept][order], right[kept][order]
        aps = [_average_precision(right[of == c], counted[c]) for c in np.flatnonzero(positives)]
        return 100 * float(np.mean(aps)) if aps else float("nan")

    everything = np.ones(len(scores), bool)
    true = kinds == ""
    ap50 = mean_ap(everything, classes, true, positives)
    counts = {kind: int((kinds == kind).sum()) for kind in ERROR_TYPES}
    counts["missed"] = int(missed.sum())
    losses = {}
    for kind in ERROR_TYPES:
        of_kind = kinds == kind
        put_right = of_kind & fixable
        fixed = mean_ap(
            ~of_kind | put_right,
            np.where(put_right, fixed_classes, classes),
            true | put_right,
            positives - missed if kind == "missed" else positives,
        )
        losses[kind] = fixed - ap50
    return ErrorTypes(ap50=ap50, counts=counts, losses=losses)


def _sort_errors(image: ImageOverlaps) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(scores, classes, kinds, classes after fixing, whether fixable) of the counted detections; missed objects."""
    found, ignored = match(image, FOREGROUND)
    count = len(image.scores)
    kinds = np.full(count, "", dtype="<U14")
    targets = np.full(count, -1)
    used = image.crowd.copy()
    used[found[found >= 0]] = True
    same = same_class(image)
    iou = np.where(image.crowd, 0.0, image.iou)
    wrong = np.flatnonzero((found < 0) & ~ignored)
    if len(wrong) and iou.shape[1]:
        own, other = np.where(same, iou, 0.0)[wrong], np.where(same, 0.0, iou)[wrong]
        best_own, best_other = own.max(axis=1), other.max(axis=1)
        choices = {
            "localisation": (best_own >= BACKGROUND) & (best_own < FOREGROUND),
            "classification": best_other >= FOREGROUND,
            "duplicate": best_own >= FOREGROUND,
            "background": np.maximum(best_own, best_other) < BACKGROUND,
        }
        kinds[wrong] = np.select(list(choices.values()), list(choices), "both")
        targets[wrong] = np.where(
            kinds[wrong] == "localisation",
            own.argmax(axis=1),
            np.where(kinds[wrong] == "classification", other.argmax(axis=1), -1),
        )
    else:
        kinds[wrong] = "background"
    fixable = np.zeros(count, bool)
    claimed = used.copy()
    for index in np.flatnonzero(targets >= 0):  # the surest first
        fixable[index] = not claimed[targets[index]]
        claimed[targets[index]] = True
    fixed_classes = image.classes.copy()
    fixed_classes[fixable] = image.truth_classes[targets[fixable]]
    counted = ~ignored
    columns = (image.scores, image.classes, kinds, fixed_classes, fixable)
    return tuple(column[counted] for column in columns), ~claimed


def _average_precision(right: np.ndarray, positives: int) -> float:
    """AP from 101 recalls; `right` is bool, sorted by falling score."""
    if positives <= 0:
        return 1.0
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / positives, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(at, len(right))].mean())


def _empty() -> tuple[np.ndarray, ...]:
    return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, "<U14"), np.zeros(0, np.int64), np.zeros(0, bool)
