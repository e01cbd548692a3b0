"""Detections of an image's windows made those of the image: each object once, whole.

Two windows that overlap both look at what they have in common. Whether their detections are of one object is decided
there alone (`_agreement`), so that the half of an object can be told from another object beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .crop_masks import CropMask, united

BORDER = 0.01  # of a window's longer side: a box that ends as close to a border may be cut by it
LEAST_BORDER = 2.0  # px
PAIRS_AT_ONCE = 2**20


@dataclass(frozen=True)
class TileDetections:
    """The n detections of an image's windows, in its pixels.

    Attributes:
        boxes: float64 (n, 4) XYXY px.
        scores: (n,) floats.
        classes: int64 (n,).
        window: int64 (n,): which window each was found in.
        masks: None without a mask head.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    window: np.ndarray
    masks: Sequence[CropMask] | None = None

    def select(self, at: np.ndarray) -> TileDetections:
        """Those at these positions, in this order."""
        masks = None if self.masks is None else [self.masks[i] for i in at.tolist()]
        return TileDetections(self.boxes[at], self.scores[at], self.classes[at], self.window[at], masks)


class TileMerger:
    """The detections of an image from those of its windows, by three rules, one after another.

    1. What a window's border may have cut is left to a window that shows it farther from its own borders.
    2. Two detections of a class that agree in what both windows show are of one object. If one of them reaches where
       the other's window does not, it shows more, and the other goes. If each does, they are parts of the object: their
       boxes become one around them, their masks are united. The best score is theirs.
    3. Of other detections of a class and of different windows that agree, one stays: one that no border cuts, else the
       best. It has the best score. Detections of one window are left to the detector, which told them apart.

    Args:
        windows: int64 (w, 4) XYXY px.
        whole: whether the last of them is the whole image: it shows everything, but fewer details, so rule 1 does not
            leave anything to it.
        measure: "nms": agreement is intersection over union; "ios": intersection over the smaller one.
        threshold: from which on two agree.
    """

    def __init__(self, windows: np.ndarray, *, whole: bool, measure: str, threshold: float) -> None:
        self.windows = windows.astype(np.float64)
        self.tiles = len(windows) - whole
        self.measure, self.threshold = measure, threshold
        low, high = self.windows[:, :2].min(axis=0), self.windows[:, 2:].max(axis=0)
        # Sides that are the image's own cut nothing.
        self.inner = np.concatenate([self.windows[:, :2] > low, self.windows[:, 2:] < high], axis=1)
        longest = (self.windows[:, 2:] - self.windows[:, :2]).max(initial=0)
        self.border = max(LEAST_BORDER, BORDER * longest)

    def __call__(self, found: TileDetections) -> TileDetections:
        """The image's detections, best first; `window` then says where the best part was found."""
        found = self._leave_cut_ones(found)
        found, regions, members = self._unite_parts(found)
        return self._suppress(found, regions, members)

    def _cut(self, boxes: np.ndarray, regions: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """bool (n, 4): which sides of boxes an inner side of their region may cut."""
        beyond = np.concatenate(
            [boxes[:, :2] - regions[:, :2], regions[:, 2:] - boxes[:, 2:]], axis=1
        )  # px between each side of the box and that of its region
        return inner & (beyond <= self.border)

    def _leave_cut_ones(self, found: TileDetections) -> TileDetections:
        cut = self._cut(found.boxes, self.windows[found.window], self.inner[found.window]).any(axis=1)
        kept = np.ones(len(cut), bool)
        by_window = _positions(found.window)
        for one, others in self._neighbours().items():
            at = by_window.get(one, np.zeros(0, np.int64))
            at = at[cut[at]]
            if not len(at):
                continue
            boxes = np.repeat(found.boxes[at], len(others), axis=0)
            regions, inner = np.tile(self.windows[others], (len(at), 1)), np.tile(self.inner[others], (len(at), 1))
            within = (boxes[:, :2] >= regions[:, :2]).all(axis=1) & (boxes[:, 2:] <= regions[:, 2:]).all(axis=1)
            whole = within & ~self._cut(boxes, regions, inner).any(axis=1)
            kept[at] = ~whole.reshape(len(at), len(others)).any(axis=1)
        return found.select(np.flatnonzero(kept))

    def _unite_parts(self, found: TileDetections) -> tuple[TileDetections, np.ndarray, list[frozenset[int]]]:
        """The detections after rule 2; the region that each is known in, (n, 4); and the windows that it is of."""
        pairs = []
        by_window = _positions(found.window)
        regions = self.windows[found.window]
        kept, scores = np.ones(len(found.scores), bool), found.scores.copy()
        for one, others in self._neighbours().items():
            for other in others[others > one].tolist():
                a, b = _same_class(found, by_window.get(one), by_window.get(other))
                agreement = self._agreement(found.boxes[a], regions[a], found.boxes[b], regions[b])
                agree = agreement >= self.threshold
                a, b, agreement = a[agree], b[agree], agreement[agree]
                a_beyond = self._reaches_beyond(found.boxes[a], self.windows[other], self.inner[other])
                b_beyond = self._reaches_beyond(found.boxes[b], self.windows[one], self.inner[one])
                for less, more, shows_less in ((a, b, b_beyond & ~a_beyond), (b, a, a_beyond & ~b_beyond)):
                    kept[less[shows_less]] = False
                    np.maximum.at(scores, more[shows_less], scores[less[shows_less]])
                both = a_beyond & b_beyond
                pairs += zip(agreement[both].tolist(), a[both].tolist(), b[both].tolist())
        pairs = [(agreement, a, b) for agreement, a, b in pairs if kept[a] and kept[b]]
        group = {at: [at] for at in {at for _, a, b in pairs for at in (a, b)}}
        for _, a, b in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
            one, other = group[a], group[b]
            # An object has one part in a window.
            if one is not other and set(found.window[one]).isdisjoint(found.window[other].tolist()):
                one += other
                group.update(dict.fromkeys(other, one))
        united_ones = {id(parts): sorted(parts) for parts in group.values() if len(parts) > 1}.values()
        boxes = found.boxes.copy()
        masks = None if found.masks is None else list(found.masks)
        members = [frozenset([window]) for window in found.window.tolist()]
        for parts in united_ones:
            best = parts[int(np.argmax(scores[parts]))]
            kept[parts] = False
            kept[best] = True
            boxes[best] = _around(found.boxes[parts])
            regions[best] = _around(regions[parts])
            members[best] = frozenset(found.window[parts].tolist())
            if masks is not None:
                masks[best] = united([masks[part] for part in parts])
        at = np.flatnonzero(kept)
        result = replace(found, boxes=boxes, scores=scores, masks=masks).select(at)
        return result, regions[at], [members[i] for i in at.tolist()]

    def _suppress(
        self, found: TileDetections, regions: np.ndarray, members: Sequence[frozenset[int]]
    ) -> TileDetections:
        single = np.array([len(m) == 1 for m in members], bool)
        cut = self._cut(found.boxes, regions, self.inner[found.window]).any(axis=1) & single
        rivals = defaultdict(list)
        for a, b in self._rivals(found, members, single):
            agreement = self._agreement(found.boxes[a], regions[a], found.boxes[b], regions[b])
            for one, other in zip(a[agreement >= self.threshold].tolist(), b[agreement >= self.threshold].tolist()):
                rivals[one].append(other)
                rivals[other].append(one)
        order = np.lexsort((-found.scores, cut))
        scores, gone, kept = found.scores.copy(), np.zeros(len(order), bool), []
        for at in order.tolist():
            if gone[at]:
                continue
            kept.append(at)
            beaten = [other for other in rivals.get(at, ()) if not gone[other]]
            gone[beaten] = True
            scores[at] = max([scores[at], *scores[beaten]])
        kept = np.array(kept, np.int64)
        result = replace(found, scores=scores)
        return result.select(kept[np.argsort(-scores[kept], kind="stable")])

    def _rivals(
        self, found: TileDetections, members: Sequence[frozenset[int]], single: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of detections of a class that no window has both of."""
        usual = single & (found.window < self.tiles)
        by_window = _positions(found.window, usual)
        for one, others in self._neighbours().items():
            for other in others[others > one].tolist():
                yield _same_class(found, by_window.get(one), by_window.get(other))
        # Those of several windows or of the whole image, which are few, with all others.
        wide = np.flatnonzero(~usual)
        for at in wide.tolist():
            others = np.flatnonzero(found.classes == found.classes[at])
            others = others[usual[others] | (others > at)]
            apart = ~np.isin(found.window[others], list(members[at]))
            for place in np.flatnonzero(~single[others]).tolist():
                apart[place] &= members[at].isdisjoint(members[int(others[place])])
            others = others[apart]
            yield np.full(len(others), at), others

    def _neighbours(self) -> dict[int, np.ndarray]:
        """The tiles that overlap each tile, or touch it."""
        if not hasattr(self, "_near"):
            self._near: dict[int, np.ndarray] = {}
            tiles = self.windows[: self.tiles]
            for one in range(len(tiles)):
                near = (tiles[:, :2] <= tiles[one, 2:]).all(axis=1) & (tiles[:, 2:] >= tiles[one, :2]).all(axis=1)
                near[one] = False
                self._near[one] = np.flatnonzero(near)
        return self._near

    def _reaches_beyond(self, boxes: np.ndarray, window: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """bool (n,): which boxes go on where a window ends."""
        past = np.concatenate([window[:2] - boxes[:, :2], boxes[:, 2:] - window[2:]], axis=1)
        return (inner & (past > 0)).any(axis=1)

    def _agreement(self, a: np.ndarray, regions_a: np.ndarray, b: np.ndarray, regions_b: np.ndarray) -> np.ndarray:
        """float64 (n,): how well boxes agree, pair by pair, in what both regions show.

        A box that its region cuts goes on beyond that border, and so do the regions, by a few px: so the halves of an
        object agree where windows only touch.
        """
        more = 2 * self.border
        low = np.maximum(regions_a[:, :2], regions_b[:, :2]) - more
        high = np.minimum(regions_a[:, 2:], regions_b[:, 2:]) + more
        a, b = (
            np.concatenate([np.clip(box[:, :2], low, high), np.clip(box[:, 2:], low, high)], axis=1)
            for box in (self._continued(a, regions_a, more), self._continued(b, regions_b, more))
        )
        sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        common = sides.clip(min=0).prod(axis=1)
        area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
        of = np.minimum(area_a, area_b) if self.measure == "ios" else area_a + area_b - common
        return np.divide(common, of, out=np.zeros_like(common), where=of > 0)

    def _continued(self, boxes: np.ndarray, regions: np.ndarray, more: float) -> np.ndarray:
        low, high = self.windows[:, :2].min(axis=0), self.windows[:, 2:].max(axis=0)
        inner = np.concatenate([regions[:, :2] > low, regions[:, 2:] < high], axis=1)
        out = np.concatenate([regions[:, :2] - more, regions[:, 2:] + more], axis=1)
        return np.where(self._cut(boxes, regions, inner), out, boxes)


def _positions(window: np.ndarray, which: np.ndarray | None = None) -> dict[int, np.ndarray]:
    """The positions of each window's detections, of those that `which` says."""
    order = np.argsort(window, kind="stable")
    if which is not None:
        order = order[which[order]]
    starts = np.flatnonzero(np.diff(window[order], prepend=-1))
    return {int(window[part[0]]): part for part in np.split(order, starts[1:]) if len(part)}


def _same_class(found: TileDetections, a: np.ndarray | None, b: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of one of `a` and one of `b` of the same class."""
    if a is None or b is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    one, other = np.nonzero(found.classes[a][:, None] == found.classes[b][None, :])
    return a[one], b[other]


def _around(boxes: np.ndarray) -> np.ndarray:
    """XYXY of the smallest box around all of these."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
