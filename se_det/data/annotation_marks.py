"""Marks of annotations that change what is learned, and that people may not mean: crowds, and what is like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# COCO's own crowds are 1.2 % of its annotations.
UNUSUAL_CROWDS = 0.05
FEW_CROWDS = 3  # so many are no pattern
# Keys by which other formats and programs say that an object is a crowd, or shall not count.
CROWD_LIKE = frozenset({"ignore", "ignored", "difficult", "crowd", "iscrowd", "is_crowd", "isgroupof", "is_group_of"})
# Under which labelling tools keep what COCO has no key for.
NESTED = ("attributes", "extra", "properties", "tags")

CROWD_REMEDY = (
    "they are left out of training, and what is found in them is not counted in evaluation. Labelling tools often mark "
    "brush masks so: set their iscrowd to 0 (`se-det check-data --fix OUT --uncrowd` does) unless they are groups"
)


def crowd_warnings(crowd: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, sentence without its end) of each unusual use of `iscrowd`.

    Args:
        crowd: bool (n,).
        classes: int64 (n,) positions in `names`; -1 without a class.
    """
    found = []
    known = classes >= 0
    total = np.bincount(classes[known], minlength=len(names))
    crowds = np.bincount(classes[known & crowd], minlength=len(names))
    only = np.flatnonzero((total > 0) & (crowds == total))
    if len(only):
        listed = ", ".join(f"{names[at]!a} ({total[at]})" for at in only[:5]) + (", ..." if len(only) > 5 else "")
        found.append(("class-of-crowds", f"all annotations of {listed} are crowds, so nothing of it is learned"))
    if crowd.sum() > max(FEW_CROWDS, UNUSUAL_CROWDS * len(crowd)):
        share = 100 * crowd.mean()
        text = f"{crowd.sum()} of {len(crowd)} annotations are crowds ({share:.0f} %; COCO: 1 %)"
        found.append(("many-crowds", text))
    return found


def crowd_like_marks(annotations: Sequence[Mapping[Any, Any]]) -> dict[str, list[int]]:
    """Key -> positions of the annotations that it is set on and that are no crowds. Keys in upper or lower case, also
    among an annotation's attributes."""
    found: dict[str, list[int]] = {}
    for at, annotation in enumerate(annotations):
        if is_set(annotation.get("iscrowd")):
            continue
        for key in _marks(annotation):
            found.setdefault(key, []).append(at)
        for name in NESTED:
            inner = annotation.get(name)
            if isinstance(inner, Mapping):
                for key in _marks(inner):
                    found.setdefault(f"{name}.{key}", []).append(at)
    return found


def _marks(entry: Mapping[Any, Any]) -> list[str]:
    return [key for key, value in entry.items() if isinstance(key, str) and key.lower() in CROWD_LIKE and is_set(value)]


def is_set(mark: Any) -> bool:
    """Whether a mark says yes, in any of the ways that programs write it."""
    if isinstance(mark, str):
        return mark.strip().lower() in ("1", "1.0", "true", "yes")
    return isinstance(mark, (int, float)) and mark == 1
