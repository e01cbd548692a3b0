"""Polygons cut to a rectangle. What is cut in two becomes two polygons, without seams along the border."""

from __future__ import annotations

from itertools import compress

import numpy as np

Window = tuple[float, float, float, float]  # x0, y0, x1, y1 px


def clip_polygons(xy: np.ndarray, points: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The parts of polygons in a rectangle, by the even-odd rule.

    Those inside stay as they are, vertex by vertex. The others are cut by the four sides one after another: the pieces
    of the outline on the inner side are joined where they cross the line, the first crossing along it with the second,
    the third with the fourth, and so on, since between those lies the polygon.

    Args:
        xy: float64 (M, 2) px, the vertices of all polygons.
        points: int64 (P,) vertices of each.
        window: x0, y0, x1, y1 px.

    Returns:
        The same of the parts, and int64 (Q,), of which polygon each is a part, not falling.
    """
    if not len(points):
        return xy, points, np.zeros(0, np.int64)
    first = np.cumsum(points) - points
    low, high = np.minimum.reduceat(xy, first), np.maximum.reduceat(xy, first)
    corner, other_corner = np.array(window[:2]), np.array(window[2:])
    inside = ((low >= corner) & (high <= other_corner)).all(axis=1)
    if inside.all():
        return xy, points, np.arange(len(points))
    outside = ((high <= corner) | (low >= other_corner)).any(axis=1)
    parts, source = [np.zeros((0, 2))], []
    for at in np.flatnonzero(~outside).tolist():
        pieces = [xy[first[at] : first[at] + points[at]]]
        if not inside[at]:
            crossed = (*(low[at] < corner), *(high[at] > other_corner))
            for axis, side, sign in compress(((0, 0, 1), (1, 1, 1), (0, 2, -1), (1, 3, -1)), crossed):
                pieces = [part for piece in pieces for part in _cut(piece, axis, window[side], sign)]
        parts += pieces
        source += [at] * len(pieces)
    return np.concatenate(parts), np.array([len(part) for part in parts[1:]], np.int64), np.array(source, np.int64)


def _cut(polygon: np.ndarray, axis: int, limit: float, sign: int) -> list[np.ndarray]:
    """What of a polygon (m, 2) lies where `sign` times its coordinate `axis` exceeds that of `limit`."""
    depth = sign * (polygon[:, axis] - limit)
    inside = depth > 0
    if not inside.any():
        return []
    if (depth >= 0).all():
        return [polygon]
    before = np.flatnonzero(inside != np.append(inside[1:], inside[0]))  # the outline enters, leaves, enters, ...
    start = int(before[0] if not inside[before[0]] else before[1])  # from the first that enters
    polygon, depth = np.concatenate([polygon[start:], polygon[:start]]), np.concatenate([depth[start:], depth[:start]])
    before = np.sort((before - start) % len(polygon))
    after = (before + 1) % len(polygon)
    share = depth[before] / (depth[before] - depth[after])
    crossings = polygon[before] + share[:, None] * (polygon[after] - polygon[before])
    crossings[:, axis] = limit
    if len(before) == 2:
        return [np.concatenate([crossings[:1], polygon[1 : before[1] + 1], crossings[1:]])]
    along = np.argsort(crossings[:, 1 - axis], kind="stable")
    joined = np.empty(len(before), np.int64)
    joined[along[0::2]], joined[along[1::2]] = along[1::2], along[0::2]
    chains = [
        np.concatenate([crossings[[at]], polygon[before[at] + 1 : before[at + 1] + 1], crossings[[at + 1]]])
        for at in range(0, len(before), 2)
    ]
    return _rings(chains, joined.tolist())


def _rings(chains: list[np.ndarray], joined: list[int]) -> list[np.ndarray]:
    """Chains put together to rings. Chain i has the ends 2 i and 2 i + 1; `joined` is the end that each end meets."""
    rings, left = [], set(range(len(chains)))
    while left:
        end = first = 2 * min(left)
        ring = []
        while not ring or end != first:
            left.remove(end // 2)
            ring.append(chains[end // 2][:: -1 if end % 2 else 1])
            end = joined[end ^ 1]
        rings.append(np.concatenate(ring))
    return rings
