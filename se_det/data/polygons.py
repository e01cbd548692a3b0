"""The geometry of polygons: what drawing one costs, which are holes in others, and their areas."""

from __future__ import annotations

import numpy as np

# px. Drawing a polygon takes about 50 bytes for each px of its outline, so at most 210 MB, and under a second.
MAX_OUTLINE = 2**22
CELLS = 2 * 28  # the mask loss draws a box's polygons at 28 x 28, of a proposal half as large at twice the scale
SLIVER = 2**-13  # of the image's long side: boxes narrower than this are drawn as if they were not
VERTICES = 64  # of the inner polygon that are looked at, evenly spread


def outline_lengths(xy: np.ndarray, first: np.ndarray, xywh: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """float64 (P,): the px that a pen goes along each polygon, in its image or its box blown up, whichever is longer.

    Args:
        xy: (V, 2) vertices px, all finite.
        first: (P,) the first vertex of each polygon.
        xywh: (P, 4) the box of each polygon's annotation px; nan where it is not known.
        sizes: (P, 2) height and width px of its image; nan where they are not known.
    """
    last = np.append(first[1:], len(xy)) - 1
    following = np.roll(xy, -1, axis=0)
    following[last] = xy[first]
    steps = np.abs(following - xy)
    own = np.add.reduceat(steps.max(axis=1), first)
    with np.errstate(invalid="ignore"):
        image = sizes[:, ::-1]
        inside = np.minimum(xywh[:, :2] + xywh[:, 2:], image) - np.maximum(xywh[:, :2], 0)
        sides = np.maximum(inside, image.max(axis=1, keepdims=True) * SLIVER)
        blown_up = np.add.reduceat(steps, first) / sides
    return np.fmax(own, CELLS * blown_up.max(axis=1))


def nesting_depth(xy: np.ndarray, start: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """How many larger polygons of its annotation each polygon lies in: odd for a hole, even for an outline or an
    island in a hole.

    Args:
        xy: float64 (V, 2) vertices.
        start: int64 (P + 1,) where each polygon's vertices start.
        owner: int64 (P,) its annotation; an annotation's polygons lie together. Those of -1 are of none.

    Returns:
        int64 (P,).
    """
    depth = np.zeros(len(owner), np.int64)
    points = np.diff(start)
    same = np.flatnonzero((owner[1:] == owner[:-1]) & (owner[1:] >= 0))
    if not len(same):
        return depth
    some = np.union1d(same, same + 1)
    some = some[points[some] >= 3]
    low, high = np.full((len(owner), 2), np.nan), np.full((len(owner), 2), np.nan)
    for at in some.tolist():
        part = xy[start[at] : start[at + 1]]
        low[at], high[at] = part.min(axis=0), part.max(axis=0)
    first = np.flatnonzero(np.diff(owner[some], prepend=-2))
    for group in np.split(some, first[1:]):
        if len(group) < 2:
            continue
        inside = (low[group, None] >= low[None, group]).all(2) & (high[group, None] <= high[None, group]).all(2)
        np.fill_diagonal(inside, False)
        for inner, outer in zip(*(group[side] for side in np.nonzero(inside))):
            one, other = (xy[start[at] : start[at + 1]] for at in (inner, outer))
            # Two outlines of one shape lie in each other: neither is a hole of the other.
            if 0 < polygon_area(one) < polygon_area(other) and _contains(other, one):
                depth[inner] += 1
    return depth


def polygon_area(xy: np.ndarray) -> float:
    """px^2 of one polygon (n, 2), whichever way round it goes."""
    x, y = xy.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def even_odd_area(areas: np.ndarray, depth: np.ndarray) -> float:
    """px^2 of nested polygons when holes are holes."""
    return float(np.where(depth % 2, -areas, areas).sum())


def _contains(outer: np.ndarray, inner: np.ndarray) -> bool:
    """Whether no vertex of `inner` lies outside of `outer`; on its border counts as inside."""
    step = max(len(inner) // VERTICES, 1)
    points = inner[::step]
    x, y = points[:, None, 0], points[:, None, 1]
    (x1, y1), (x2, y2) = outer.T, np.roll(outer, -1, axis=0).T
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    within = crossing.sum(axis=1) % 2 == 1
    length = np.hypot(x2 - x1, y2 - y1)
    off = np.abs((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)) <= 1e-6 * np.maximum(length, 1)
    between = (np.minimum(x1, x2) - 1e-6 <= x) & (x <= np.maximum(x1, x2) + 1e-6)
    between &= (np.minimum(y1, y2) - 1e-6 <= y) & (y <= np.maximum(y1, y2) + 1e-6)
    return bool((within | (off & between).any(axis=1)).all())
