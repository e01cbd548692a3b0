"""The confusion matrix of a detector at one score threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .overlaps import ImageOverlaps, above_score, same_class


def confusion_matrix(
    images: Sequence[ImageOverlaps], num_classes: int, *, score_threshold: float = 0.5, iou_threshold: float = 0.5
) -> np.ndarray:
    """Match detections and objects whatever their classes, and count the pairs by class.

    Matching is greedy by falling IoU, each detection and object once; of equal IoUs the pair of equal classes goes
    first, then the higher score.

    Args:
        images: from `image_overlaps`.
        num_classes: number of classes of the data set.
        score_threshold: detections with a lower score are left out.
        iou_threshold: lowest IoU of a pair.

    Returns:
        int64 (num_classes + 1, num_classes + 1): row = class of the object, column = class of the detection. The last
        column counts unmatched objects, the last row unmatched detections. Crowds are not counted, nor are unmatched
        detections of a crowd's class of which a share of `iou_threshold` lies in it.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for whole in images:
        image = above_score(whole, score_threshold)
        same = same_class(image)
        allowed = (image.iou >= iou_threshold) & ~image.crowd
        detections, objects = np.nonzero(allowed)
        order = np.lexsort((detections, ~same[detections, objects], -image.iou[detections, objects]))
        free = np.ones(len(image.scores), bool)
        unfound = ~image.crowd
        for detection, thing in zip(detections[order], objects[order]):
            if free[detection] and unfound[thing]:
                free[detection] = unfound[thing] = False
                matrix[image.truth_classes[thing], image.classes[detection]] += 1
        in_crowd = (same & image.crowd & (image.iou >= iou_threshold)).any(axis=1)
        np.add.at(matrix[-1], image.classes[free & ~in_crowd], 1)
        np.add.at(matrix[:, -1], image.truth_classes[unfound], 1)
    return matrix


def largest_confusions(matrix: np.ndarray, max_pairs: int) -> list[tuple[int, int, int]]:
    """The most frequent wrong pairs: (class of the object, class of the detection, count)."""
    wrong = matrix[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:max_pairs]
    pairs = (divmod(int(place), len(wrong)) for place in order)
    return [(row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]]
