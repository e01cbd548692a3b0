"""Panoptic quality (Kirillov et al., arXiv 1801.00868, equation 1), as panopticapi computes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

VOID = 0
OFFSET = 1 << 24  # above every number that three bytes hold


@dataclass
class Counts:
    """Of one category: the sum of the IoUs of matched pairs, and how many segments are right, false and missed."""

    iou: float = 0.0
    right: int = 0
    false: int = 0
    missed: int = 0

    def add(self, other: Counts) -> None:
        """Add another part of the data."""
        self.iou += other.iou
        self.right, self.false, self.missed = (
            self.right + other.right, self.false + other.false, self.missed + other.missed,
        )  # fmt: skip

    @property
    def quality(self) -> tuple[float, float, float]:
        """PQ, SQ and RQ; zeros where nothing is right, nan where there was nothing."""
        number = self.right + 0.5 * self.false + 0.5 * self.missed
        if number == 0:
            return (math.nan,) * 3
        return self.iou / number, self.iou / self.right if self.right else 0.0, self.right / number


def match_segments(
    truth: np.ndarray,
    segments: Sequence[Mapping[str, Any]],
    found: np.ndarray,
    predicted: Sequence[Mapping[str, Any]],
) -> dict[int, Counts]:
    """Compare the segments of an image: those of a category that overlap by more than a half are a pair.

    Args:
        truth, found: integers (H, W), the number of the segment at each pixel; 0 is none.
        segments: `id`, `category_id`, `iscrowd` and `area` of each annotated one.
        predicted: `id` and `category_id` of each found one, all of which are in `found`.

    Returns:
        The counts of each category that occurs.
    """
    counts: dict[int, Counts] = {}

    def of(category: int) -> Counts:
        return counts.setdefault(category, Counts())

    pairs, sizes = np.unique(truth.astype(np.int64) * OFFSET + found, return_counts=True)
    common = {divmod(pair, OFFSET): size for pair, size in zip(pairs.tolist(), sizes.tolist())}
    areas = dict(zip(*(values.tolist() for values in np.unique(found, return_counts=True))))
    annotated = {info["id"]: info for info in segments}
    categories = {info["id"]: info["category_id"] for info in predicted}
    matched_truth, matched_found = set(), set()
    for (one, other), size in common.items():
        info = annotated.get(one)
        if info is None or other not in categories or info["iscrowd"] or info["category_id"] != categories[other]:
            continue
        # What was found where nothing is annotated counts neither way.
        union = areas[other] + info["area"] - size - common.get((VOID, other), 0)
        if size / union > 0.5:
            of(info["category_id"]).right += 1
            of(info["category_id"]).iou += size / union
            matched_truth.add(one)
            matched_found.add(other)
    crowds = {}
    for number, info in annotated.items():
        if number not in matched_truth:
            if info["iscrowd"]:
                crowds[info["category_id"]] = number
            else:
                of(info["category_id"]).missed += 1
    for number, category in categories.items():
        if number not in matched_found:
            nowhere = common.get((VOID, number), 0) + common.get((crowds.get(category, -1), number), 0)
            if nowhere / areas[number] <= 0.5:
                of(category).false += 1
    return counts


def panoptic_quality(
    counts: Mapping[int, Counts], categories: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, float], list[tuple[str, bool, Counts]]]:
    """PQ, SQ and RQ in percent, of all categories, of things (`_th`) and of stuff (`_st`), and `PQ-<name>` of each.

    Each is a mean over the categories that occur, in the truth or in what was found; nan without any.

    Returns:
        The numbers, and (name, whether it is a thing, counts) of each category.
    """
    rows = [(str(c["name"]), bool(c["isthing"]), counts.get(c["id"], Counts())) for c in categories]
    values: dict[str, float] = {}
    for suffix, wanted in (("", (True, False)), ("_th", (True,)), ("_st", (False,))):
        known = [c.quality for _, thing, c in rows if thing in wanted and not math.isnan(c.quality[0])]
        for at, name in enumerate(("PQ", "SQ", "RQ")):
            # Added up one by one, as panopticapi does.
            values[f"{name}{suffix}"] = 100 * (sum(q[at] for q in known) / len(known)) if known else math.nan
    values |= {f"PQ-{name}": 100 * c.quality[0] for name, _, c in rows}
    return values, rows
