"""Which images show the same thing: copies, re-encodings, crops, mirrored ones, frames of one film.

Candidates are pairs of images that share ORB features (Rublee et al., 2011), found through hashes of parts of their
descriptors, or whose difference hashes are close. Each is then proved: one image is laid over the other by the
similarity that the features give, and what they share must correlate. So a watermark that a hundred images have does
not make them one, and an even surface is not taken for another.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError
from .regions import read_at_any_size

SIDE = 320  # px of the longer side at which features are found
FEATURES = 300
KEY_BITS, TABLES = 32, 16  # of a descriptor's 256 bits, how many are in a key, and how many keys it has
CROWDED = 40  # descriptors with the same key: more say nothing
VOTES = 8  # keys in common that make a candidate; of unrelated images 1 in 100 has 5 or more
HASH_BITS = 12  # of 64 in which the difference hashes of a candidate may differ
INLIERS = 10  # features that must agree in one similarity
OVERLAP = 0.35  # of the smaller image that both must show
CORRELATION = 0.8  # of the grey values there
# Roboflow names the copies that it makes of one picture <name>.rf.<hash>.jpg.
COPY_OF = re.compile(r"(.+)\.rf\.[0-9a-fA-F]{8,}$")


@dataclass(frozen=True)
class _Look:
    """What is kept of an image: grey values at `SIDE`, features and their places, a hash, and the pixels' digest."""

    grey: np.ndarray
    points: np.ndarray  # (n, 2) xy px
    descriptors: np.ndarray  # uint8 (n, 32)
    mirrored: tuple[np.ndarray, np.ndarray]
    hash: np.ndarray  # bool (64,)
    digest: bytes


def group_images(paths: Sequence[Path]) -> np.ndarray:
    """Put images that show the same thing into one group.

    Images that cannot be read are groups of their own: whoever trains on them says so.

    Args:
        paths: the files, n of them.

    Returns:
        int64 (n,): the position of the first image of each one's group. The same for the same files, whatever the
        number of cores.
    """
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_look, paths))
    group = _Groups(len(paths))
    for same in (_by_name(paths), _by_digest(looks)):
        for first, *others in same:
            for other in others:
                group.join(first, other)
    for one, other, mirrored in _candidates(looks):
        if group.find(one) != group.find(other) and _same(looks[one], looks[other], mirrored):
            group.join(one, other)
    return np.array([group.find(i) for i in range(len(paths))], dtype=np.int64)


def _look(path: Path) -> _Look | None:
    try:
        pixels = read_at_any_size(path)
    except DataError:
        return None
    scale = SIDE / max(pixels.shape[:2])
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2GRAY)
    size = [max(round(side * scale), 16) for side in grey.shape[::-1]]
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    points, descriptors = _features(grey)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return _Look(
        grey=grey,
        points=points,
        descriptors=descriptors,
        mirrored=_features(np.ascontiguousarray(grey[:, ::-1])),
        hash=(small[:, 1:] > small[:, :-1]).ravel(),
        digest=hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest(),
    )


def _features(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, descriptors = cv2.ORB_create(FEATURES, fastThreshold=8).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8)
    return np.array([point.pt for point in points], np.float32), descriptors


def _by_name(paths: Sequence[Path]) -> list[list[int]]:
    found = defaultdict(list)
    for i, path in enumerate(paths):
        copy = COPY_OF.match(path.stem)
        if copy:
            found[copy[1]].append(i)
    return list(found.values())


def _by_digest(looks: Sequence[_Look | None]) -> list[list[int]]:
    found = defaultdict(list)
    for i, look in enumerate(looks):
        if look is not None:
            found[look.digest].append(i)
    return list(found.values())


def _candidates(looks: Sequence[_Look | None]) -> list[tuple[int, int, bool]]:
    """Pairs worth a closer look, and whether one is to be mirrored; the likeliest first."""
    votes = _votes(looks, mirrored=False)
    votes += _votes(looks, mirrored=True)
    pairs = [(count, one, other, mirrored) for count, one, other, mirrored in votes if count >= VOTES]
    known = [i for i, look in enumerate(looks) if look is not None]
    hashes = np.array([looks[i].hash for i in known], dtype=np.float32).reshape(-1, 64)
    for start in range(0, len(known), 1024):  # a block of rows at a time
        block = hashes[start : start + 1024]
        for flip in (False, True):
            # Mirrored, each comparison of neighbours is another's, and turned round.
            other = 1 - hashes.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64) if flip else hashes
            distance = block @ (1 - other).T + (1 - block) @ other.T
            rows, columns = np.nonzero(distance <= HASH_BITS)
            pairs += [
                (0, known[start + row], known[column], flip)
                for row, column in zip(rows.tolist(), columns.tolist())
                if start + row < column
            ]
    pairs.sort(key=lambda pair: (-pair[0], *pair[1:]))
    return [(one, other, mirrored) for _, one, other, mirrored in pairs]


def _votes(looks: Sequence[_Look | None], *, mirrored: bool) -> list[tuple[int, int, int, bool]]:
    """(features in common, one, other, mirrored) of pairs of images, by keys made of some bits of the descriptors."""
    parts = [(i, look.descriptors) for i, look in enumerate(looks) if look is not None and len(look.descriptors)]
    if not parts:
        return []
    owners = np.concatenate([np.full(len(d), i) for i, d in parts])
    bits = np.unpackbits(np.concatenate([d for _, d in parts]), axis=1)
    if mirrored:
        flipped = [(i, looks[i].mirrored[1]) for i, _ in parts]
        owners_of_flipped = np.concatenate([np.full(len(d), i) for i, d in flipped])
        bits_of_flipped = np.unpackbits(np.concatenate([d for _, d in flipped]), axis=1)
    rng = np.random.default_rng(0)
    weights = 1 << np.arange(KEY_BITS, dtype=np.int64)
    counts: dict[tuple[int, int], int] = defaultdict(int)
    for _ in range(TABLES):
        chosen = rng.choice(256, KEY_BITS, replace=False)
        keys = bits[:, chosen].astype(np.int64) @ weights
        sides, who = np.zeros(len(keys), bool), owners
        if mirrored:
            keys = np.concatenate([keys, bits_of_flipped[:, chosen].astype(np.int64) @ weights])
            sides = np.concatenate([sides, np.ones(len(owners_of_flipped), bool)])
            who = np.concatenate([owners, owners_of_flipped])
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order], prepend=-1, append=-1))
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist()):
            if 2 <= end - start <= CROWDED:
                members = order[start:end]
                _count_pairs(counts, who[members], sides[members], mirrored)
    return [(count, one, other, mirrored) for (one, other), count in counts.items()]


def _count_pairs(counts: dict[tuple[int, int], int], who: np.ndarray, sides: np.ndarray, mirrored: bool) -> None:
    pairs = set()
    for a in range(len(who)):
        for b in range(a + 1, len(who)):
            if who[a] != who[b] and sides[a] != sides[b] if mirrored else who[a] != who[b]:
                pairs.add((int(min(who[a], who[b])), int(max(who[a], who[b]))))
    for pair in pairs:
        counts[pair] += 1


def _same(one: _Look, other: _Look, mirrored: bool) -> bool:
    """Whether what both images show correlates, one laid over the other."""
    grey = np.ascontiguousarray(other.grey[:, ::-1]) if mirrored else other.grey
    points, descriptors = other.mirrored if mirrored else (other.points, other.descriptors)
    whole = np.float32([[grey.shape[1] / one.grey.shape[1], 0, 0], [0, grey.shape[0] / one.grey.shape[0], 0]])
    if _correlated(one.grey, grey, whole):  # nothing but encoded or scaled again
        return True
    if min(len(one.points), len(points)) < INLIERS:
        return False
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(one.descriptors, descriptors)
    matches = [m for m in matches if m.distance < 72]
    if len(matches) < INLIERS:
        return False
    source = np.float32([one.points[m.queryIdx] for m in matches])
    target = np.float32([points[m.trainIdx] for m in matches])
    similarity, inliers = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=4)
    return similarity is not None and int(inliers.sum()) >= INLIERS and _correlated(one.grey, grey, similarity)


def _correlated(one: np.ndarray, other: np.ndarray, move: np.ndarray) -> bool:
    """Whether `one`, moved by the 2 x 3 matrix, shows what `other` does."""
    size = other.shape[::-1]
    moved = cv2.warpAffine(one, move, size, flags=cv2.INTER_AREA)
    there = cv2.warpAffine(np.full_like(one, 255), move, size, flags=cv2.INTER_NEAREST) > 0
    area = abs(float(np.linalg.det(move[:, :2]))) * one.size
    if there.sum() < OVERLAP * min(area, other.size):
        return False
    # Fine detail differs between encodings and frames: both are looked at blurred.
    a = cv2.GaussianBlur(moved, (0, 0), 2)[there].astype(np.float64)
    b = cv2.GaussianBlur(other, (0, 0), 2)[there].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return bool(scale > 0 and a @ b / scale >= CORRELATION)


class _Groups:
    """Union-find; a group is named by its first member."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first
