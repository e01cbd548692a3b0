"""The COCO protocol: precision and recall of detections, in whole arrays instead of image by image and class by class.

The rules, and so the numbers, are pycocotools' COCOeval's. What takes the time there is gone through once for all area
ranges and IoU thresholds: only pairs that overlap by the lowest threshold are looked at, and all cells (a class in an
image, see `overlaps`) take their turns together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .overlaps import ALMOST_ONE, Entries, Pairs, find_overlaps, rank_in_cells

# As COCOeval computes them, to the last bit.
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # T of them
RECALLS = np.linspace(0.0, 1.0, 101)  # R
AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)], np.float64)  # A of them, px^2
LIMITS = (1, 10, 100)  # M: detections of a class in an image


@dataclass(frozen=True)
class Outcomes:
    """What became of each detection within the last limit at IoU 0.5, with objects of every size.

    Attributes:
        label: int64 (D,), its class.
        score: float64 (D,).
        right: bool (D,), whether it found an object.
        counted: bool (D,), whether it counts: not in a crowd.
        positives: int64 (K,), the objects of each class.
    """

    label: np.ndarray
    score: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    positives: np.ndarray


@dataclass(frozen=True)
class Accumulated:
    """What the protocol's numbers are means of; -1 for a class without objects of the size.

    Attributes:
        precision: float64 (T, R, K classes, A), with the last limit.
        recall: float64 (T, K, A, M).
    """

    precision: np.ndarray
    recall: np.ndarray
    outcomes: Outcomes


@dataclass(frozen=True)
class _Matches:
    """The detections that overlap an object by the lowest threshold at least; others match nothing.

    Attributes:
        detection: int64 (D,), their indices, ascending.
        matched: bool (A, T, D), whether there is an object for it.
        ignored: bool (A, T, D), whether that object does not count.
    """

    detection: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray


def accumulate(
    objects: Entries,
    crowd: np.ndarray,
    detections: Entries,
    score: np.ndarray,
    *,
    images: int,
    classes: int,
    limits: Sequence[int] = LIMITS,
    unlabelled: np.ndarray | None = None,
    lenient: np.ndarray | None = None,
) -> Accumulated:
    """Precision and recall.

    Args:
        objects, detections: in any order; of equal scores, the detection of the earlier image and position is first.
        crowd: bool, whether an object is one.
        score: float64, of the detections.
        limits: how many detections of a class in an image are looked at, ascending; COCOeval's `maxDets`.
        unlabelled: bool, of the objects: what finds one does not count either, but only one detection may.
        lenient: bool, of the detections: one that finds nothing does not count (LVIS); None is none.
    """
    order = np.argsort(objects.cell, kind="stable")
    objects, crowd = objects.take(order), crowd[order]
    left_out = crowd if unlabelled is None else crowd | unlabelled[order]
    order, rank = rank_in_cells(detections.cell, score)
    order, rank = order[rank < limits[-1]], rank[rank < limits[-1]]
    detections, score = detections.take(order), score[order]
    lenient = np.zeros(len(order), bool) if lenient is None else lenient[order]

    pairs = find_overlaps(detections, objects, crowd, THRESHOLDS[0])
    ignore = left_out | _outside(objects.area)
    matches = _match(pairs, detections.cell, crowd, ignore)
    positives = np.array([np.bincount(objects.cell[~row] // images, minlength=classes) for row in ignore])
    label, outside = detections.cell // images, _outside(detections.area) | lenient
    precision, recall = _curves(matches, label, score, rank, outside, positives, limits)
    return Accumulated(precision, recall, _outcomes(matches, label, score, outside[0], positives[0]))


def _outside(area: np.ndarray) -> np.ndarray:
    """bool (A, n): which areas are not in the ranges."""
    return (area < AREAS[:, :1]) | (area > AREAS[:, 1:])


def _match(pairs: Pairs, cell: np.ndarray, crowd: np.ndarray, ignore: np.ndarray) -> _Matches:
    """Every detection takes the object that it overlaps most and no surer detection of its cell has taken (crowds serve
    many): of those that count, or else of those that are ignored. Of equal overlaps the last object's is taken."""
    order = np.lexsort((pairs.object, pairs.overlap, pairs.detection))
    thing, overlap = pairs.object[order], pairs.overlap[order]
    detection, first, numbers = np.unique(pairs.detection, return_index=True, return_counts=True)
    shape = (*ignore.shape[:1], len(THRESHOLDS))
    matched, ignored = (np.zeros((*shape, len(detection)), bool) for _ in range(2))
    taken = np.zeros((*shape, ignore.shape[1]), bool)

    enough = overlap >= np.minimum(THRESHOLDS, ALMOST_ONE)[:, None]
    # Of the pairs of a detection the one to take is that of the highest number here.
    preference = np.arange(len(thing)) + len(thing) * ~ignore[:, thing]
    starts = np.flatnonzero(np.diff(cell[detection], prepend=-1))
    turn = np.arange(len(detection)) - np.repeat(starts, np.diff(starts, append=len(detection)))
    by_turn = np.argsort(turn, kind="stable")
    for now in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]) if len(turn) else ():  # one of each cell
        ends = np.cumsum(numbers[now])
        at = np.arange(ends[-1]) + np.repeat(first[now] - (ends - numbers[now]), numbers[now])
        free = enough[:, at] & (~taken[:, :, thing[at]] | crowd[thing[at]])
        best = np.maximum.reduceat(np.where(free, preference[:, None, at], -1), ends - numbers[now], axis=2)
        size, threshold, place = np.nonzero(best >= 0)
        got = thing[best[size, threshold, place] % len(thing)]
        taken[size, threshold, got] = True
        matched[size, threshold, now[place]] = True
        ignored[size, threshold, now[place]] = ignore[size, got]
    return _Matches(detection, matched, ignored)


def _curves(
    matches: _Matches, label: np.ndarray, score: np.ndarray, rank: np.ndarray, outside: np.ndarray,
    positives: np.ndarray, limits: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Precision over recall and recall as `Accumulated` has them, going down the scores of each class.

    Args:
        label, score, rank: of the detections: class, score, position among those of the image and class.
        outside: bool (A, n): a detection without a match does not count where it is not of the size.
        positives: int64 (A, K), the objects that count.
    """
    sizes, classes = positives.shape
    order = np.lexsort((-score, label))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    down = np.argsort(place[matches.detection])
    detection, matched, ignored = matches.detection[down], matches.matched[..., down], matches.ignored[..., down]
    right = matched & ~ignored
    begin = np.searchsorted(label[detection], np.arange(classes + 1))
    of_size = positives.T  # (K, A)

    recall = np.full((len(THRESHOLDS), classes, sizes, len(limits)), -1.0)
    for m, limit in enumerate(limits):
        sums = _sums(right & (rank[detection] < limit))
        found = (sums[..., begin[1:]] - sums[..., begin[:-1]]).transpose(1, 2, 0)  # (T, K, A)
        np.divide(found, of_size, out=recall[..., m], where=of_size > 0)

    # All that count up to a detection: as if nothing were matched, and the correction for those that are.
    unmatched = ~outside[:, order]
    base = _sums(unmatched)
    start = np.searchsorted(label[order], np.arange(classes))
    correction = np.where(matched, (~ignored).astype(np.int8) - unmatched[:, None, place[detection]], 0)
    counted = base[:, None, place[detection] + 1] + np.cumsum(correction, axis=2)
    corrected = np.concatenate([np.zeros((sizes, len(THRESHOLDS), 1), np.int64), np.cumsum(correction, axis=2)], axis=2)
    precision = np.full((len(THRESHOLDS), len(RECALLS), classes, sizes), -1.0)
    for k, a in np.argwhere(of_size > 0):
        for t in range(len(THRESHOLDS)):
            hits = begin[k] + np.flatnonzero(right[a, t, begin[k] : begin[k + 1]])
            before = base[a, start[k]] + corrected[a, t, begin[k]]
            precision[t, :, k, a] = _envelope(counted[a, t, hits] - before, positives[a, k])
    return precision, recall


def _outcomes(
    matches: _Matches, label: np.ndarray, score: np.ndarray, outside: np.ndarray, positives: np.ndarray
) -> Outcomes:
    matched, ignored = matches.matched[0, 0], matches.ignored[0, 0]
    right, counted = np.zeros(len(label), bool), ~outside
    right[matches.detection] = matched & ~ignored
    counted[matches.detection] = np.where(matched, ~ignored, counted[matches.detection])
    return Outcomes(label, score, right, counted, positives)


def _envelope(counted: np.ndarray, positives: int) -> np.ndarray:
    """The precision at `RECALLS`: the best at that recall or a higher one.

    Args:
        counted: at each detection that is right, how many detections count up to it.

    Only those that are right matter: between them precision falls and recall stays.
    """
    right = np.arange(1, len(counted) + 1)
    best = np.maximum.accumulate((right / (counted + np.spacing(1)))[::-1])[::-1]
    at = np.searchsorted(right / positives, RECALLS, side="left")
    return np.append(best, 0.0)[at]


def _sums(flags: np.ndarray) -> np.ndarray:
    """How many are true before each position, and in all: (..., n) to (..., n + 1)."""
    return np.concatenate([np.zeros((*flags.shape[:-1], 1), np.int64), np.cumsum(flags, axis=-1)], axis=-1)
