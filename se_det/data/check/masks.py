"""Segmentations: polygons and run lengths, and what area and extent they have. A few million vertices at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..coco_json import PACKED, as_numpy, shorten
from ..polygons import MAX_OUTLINE, nesting_depth, outline_lengths
from ..rle import decompress_counts
from .annotation_entries import AnnotationTable
from .document import Document
from .findings import Findings, is_number
from .image_entries import ImageTable

CHUNK = 2_000_000  # values of polygons, or characters of RLEs, that are worked on at once
NO_EXTENT = (np.inf, np.inf, -np.inf, -np.inf)


@dataclass
class MaskTable:
    """Of n annotations.

    Attributes:
        area: float64 (n,) px^2: the sum of the polygons', or the set pixels of the RLE; nan without a sound mask.
        extent: float64 (n, 4) x0, y0, x1, y1 of the polygons; nan without sound ones.
        bad_polygons: bool (P,) which polygons of the file are faulty.
        depth: int64 (P,) how many polygons of its annotation each lies in (`nesting_depth`).
        unusable: positions of annotations whose segmentation is neither polygons nor a sound RLE.
    """

    area: np.ndarray
    extent: np.ndarray
    bad_polygons: np.ndarray
    depth: np.ndarray
    unusable: set[int]


def check_masks(document: Document, images: ImageTable, table: AnnotationTable, findings: Findings) -> MaskTable:
    """Everything that a mask can be checked for on its own."""
    number = len(table.ids)
    sizes = np.full((number, 2), np.nan)
    owned = table.owner >= 0
    sizes[owned] = images.sizes[table.owner[owned]]
    masks = MaskTable(
        area=np.full(number, np.nan),
        extent=np.full((number, 4), np.nan),
        bad_polygons=np.zeros(0, bool),
        depth=np.zeros(0, np.int64),
        unusable=set(),
    )
    _check_polygons(document, table, sizes, masks, findings)
    _check_holes(document, table, masks, findings)
    _check_runs(document, table, sizes, masks, findings)
    _note_unmasked(document, table, findings)
    return masks


def _check_holes(document: Document, table: AnnotationTable, masks: MaskTable, findings: Findings) -> None:
    owner, start = polygon_rows(document)
    values = as_numpy(document.polygons.values)
    if values.size % 2 or (np.diff(start) % 2).any():  # positions of vertices are halves of those of values
        masks.depth = np.zeros(len(owner), np.int64)
        return
    masks.depth = nesting_depth(values.reshape(-1, 2), start // 2, np.where(masks.bad_polygons, -1, owner))
    holes = Counter(owner[masks.depth % 2 == 1].tolist())
    for at, count in sorted(holes.items()):
        findings.add("polygon-hole", f"{count} of its polygons lie{'s' if count == 1 else ''} inside another: a hole?",
                     part="annotations", at=at, id=table.ids[at])  # fmt: skip


def _note_unmasked(document: Document, table: AnnotationTable, findings: Findings) -> None:
    without = [at for at, a in enumerate(document.annotations) if PACKED not in a and not a.get("segmentation")]
    if len(without) < len(document.annotations):
        for at in without:
            findings.add("no-mask", "it has no segmentation", part="annotations", at=at, id=table.ids[at])


def polygon_rows(document: Document) -> tuple[np.ndarray, np.ndarray]:
    """int64 (P,) each polygon's annotation, -1 for one of another object; int64 (P + 1,) where its values start."""
    counts, lengths = as_numpy(document.polygons.counts), as_numpy(document.polygons.lengths)
    annotation_of = np.full(len(counts), -1)
    for at, annotation in enumerate(document.annotations):
        packed = annotation.get(PACKED)
        if packed is not None:
            annotation_of[packed] = at
    return np.repeat(annotation_of, counts), np.concatenate(([0], np.cumsum(lengths)))


def _check_polygons(
    document: Document, table: AnnotationTable, sizes: np.ndarray, masks: MaskTable, findings: Findings
) -> None:
    owner, start = polygon_rows(document)
    lengths = np.diff(start)
    short = (lengths < 6) | (lengths % 2 == 1)
    bad = short.copy()
    for at in np.flatnonzero(short & (owner >= 0)):
        what = "an odd number of values" if lengths[at] % 2 else "fewer than 3 points"
        findings.add("polygon-too-short", f"a polygon has {what} ({lengths[at]} values)",
                     part="annotations", at=owner[at], id=table.ids[owner[at]])  # fmt: skip

    values = as_numpy(document.polygons.values)
    area = np.zeros(len(table.ids))
    extent = np.tile(NO_EXTENT, (len(table.ids), 1))
    for first, last in _chunks(start):
        rows = first + np.flatnonzero(~short[first:last] & (owner[first:last] >= 0))
        if not len(rows):
            continue
        kept = np.zeros(last - first, bool)
        kept[rows - first] = True
        part = values[start[first] : start[last]][np.repeat(kept, lengths[first:last])]
        xy = part.reshape(-1, 2)
        ends = np.cumsum(lengths[rows] // 2)
        begins = ends - lengths[rows] // 2
        with np.errstate(invalid="ignore", over="ignore"):
            low, high = np.minimum.reduceat(xy, begins), np.maximum.reduceat(xy, begins)
            following = np.roll(xy, -1, axis=0)
            following[ends - 1] = xy[begins]
            cross = xy[:, 0] * following[:, 1] - xy[:, 1] * following[:, 0]
            areas = np.abs(np.add.reduceat(cross, begins)) / 2
            longest = np.fmax(*sizes[owner[rows]].T)
            finite = np.isfinite(low).all(axis=1) & np.isfinite(high).all(axis=1)
            # As the reader: drawing a polygon takes memory as long as its outline.
            far = finite & ((high.max(axis=1) > 2 * longest) | (low.min(axis=1) < -longest))
        for at in rows[~finite]:
            findings.add("not-finite", "a polygon has a coordinate that is no finite number",
                         part="annotations", at=owner[at], id=table.ids[owner[at]])  # fmt: skip
        for at, lowest, highest in zip(rows[far], low[far], high[far]):
            findings.add("polygon-outside", f"a polygon reaches from {lowest.tolist()} to {highest.tolist()}",
                         part="annotations", at=owner[at], id=table.ids[owner[at]])  # fmt: skip
        sound = finite & ~far
        if sound.any():
            own = owner[rows]
            with np.errstate(invalid="ignore", over="ignore"):
                long = sound & (outline_lengths(xy, begins, table.xywh[own], sizes[own]) > MAX_OUTLINE)
            for at in rows[long]:
                findings.add("polygon-too-long", f"a polygon's outline, in its image or blown up from its box, is "
                             f"over {MAX_OUTLINE} px", part="annotations", at=owner[at],
                             id=table.ids[owner[at]])  # fmt: skip
            sound &= ~long
        bad[rows[~sound]] = True
        owners = owner[rows[sound]]
        np.add.at(area, owners, areas[sound])
        np.minimum.at(extent, (owners[:, None], [0, 1]), low[sound])
        np.maximum.at(extent, (owners[:, None], [2, 3]), high[sound])
    known = np.isfinite(extent).all(axis=1)
    masks.area[known], masks.extent[known] = area[known], extent[known]
    masks.bad_polygons = bad


def _chunks(start: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of polygons of together about CHUNK values."""
    first, count = 0, len(start) - 1
    while first < count:
        last = int(np.searchsorted(start, start[first] + CHUNK, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def _check_runs(
    document: Document, table: AnnotationTable, sizes: np.ndarray, masks: MaskTable, findings: Findings
) -> None:
    waiting: list[tuple[int, list[int] | bytes]] = []
    held = 0
    for at, annotation in enumerate(document.annotations):
        found = annotation.get("segmentation")
        if found is None or found == []:
            continue
        counts = found.get("counts") if isinstance(found, dict) else None
        if not isinstance(found, dict) or not _sound_counts(counts):
            masks.unusable.add(at)
            what = f"the RLE counts are {shorten(counts)}" if isinstance(found, dict) else f"{shorten(found)}"
            findings.add("wrong-type", f"segmentation: {what}, neither polygons of numbers nor an RLE",
                         part="annotations", at=at, id=table.ids[at])  # fmt: skip
            continue
        size = sizes[at]
        if not _is_size(found.get("size")) or (np.isfinite(size).all() and found["size"] != size.tolist()):
            masks.unusable.add(at)
            findings.add("rle-size", f"the RLE is of the size {shorten(found.get('size'))}, its image of "
                         f"{_shown(size)} (height, width)", part="annotations", at=at, id=table.ids[at])  # fmt: skip
            continue
        waiting.append((at, counts.encode() if isinstance(counts, str) else counts))
        held += len(counts)
        if held > CHUNK:
            _decode_runs(waiting, document, table, masks, findings)
            waiting, held = [], 0
    _decode_runs(waiting, document, table, masks, findings)


def _decode_runs(
    waiting: list[tuple[int, Any]], document: Document, table: AnnotationTable, masks: MaskTable, findings: Findings
) -> None:
    """Decode the run lengths of some annotations and see that each sums up to its size."""
    if not waiting:
        return
    texts = [(at, counts) for at, counts in waiting if isinstance(counts, bytes)]
    plain = [(at, counts) for at, counts in waiting if isinstance(counts, list)]
    values, lengths, valid = decompress_counts([text for _, text in texts])
    owners = np.array([at for at, _ in texts + plain])
    lengths = np.concatenate((lengths, np.array([len(counts) for _, counts in plain], np.int64)))
    values = np.concatenate([values, *(np.array(counts, np.int64) for _, counts in plain)])
    valid = np.concatenate((valid, np.ones(len(plain), bool)))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # Each run is bounded first, so that no sum can run over and be right by chance.
    fits = np.logical_and.reduceat((values >= 0) & (values <= 2**40), starts)
    total = np.add.reduceat(values, starts)
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    ones = np.add.reduceat(np.where(place % 2 == 1, values, 0), starts)
    pixels = np.array([np.prod([float(v) for v in document.annotations[at]["segmentation"]["size"]]) for at in owners])
    sound = valid & fits & (total == pixels)
    masks.area[owners[sound]] = ones[sound]
    masks.unusable.update(owners[~sound].tolist())
    for at in owners[~sound]:
        size = document.annotations[at]["segmentation"]["size"]
        findings.add("rle-damaged", f"the RLE counts do not sum up to its size, {size} (height, width)",
                     part="annotations", at=at, id=table.ids[at])  # fmt: skip


def _sound_counts(counts: Any) -> bool:
    if isinstance(counts, str):
        return bool(counts) and counts.isascii()
    return (
        isinstance(counts, list) and bool(counts) and set(map(type, counts)) <= {int} and max(map(abs, counts)) < 2**40
    )


def _is_size(size: Any) -> bool:
    return (
        isinstance(size, list)
        and len(size) == 2
        and all(is_number(side) and 0 < side < 2**20 and side == int(side) for side in size)
    )


def _shown(size: np.ndarray) -> str:
    return str([int(side) for side in size]) if np.isfinite(size).all() else "no known size"
