"""Detections of windows made those of the image, against what a detector that sees perfectly would find in each."""

from __future__ import annotations

import numpy as np
import pytest

from se_det.data.tiles import Tiling
from se_det.inference.crop_masks import crop_mask, paste_crop_masks
from se_det.inference.tile_merging import TileDetections, TileMerger

SIZE = 600, 700  # height, width px


def seen(windows, objects, *, least=1.0, masks=None, noise=None):
    """What is found of objects (x0, y0, x1, y1, class, score) in each window: the part that it shows."""
    rows = []
    for number, window in enumerate(np.asarray(windows, float)):
        for at, (*box, kind, score) in enumerate(objects):
            low, high = np.maximum(box[:2], window[:2]), np.minimum(box[2:], window[2:])
            if (high - low > least).all():
                part = np.concatenate([low, high])
                if noise is not None:
                    part = np.clip(part + noise.normal(0, 0.7, 4), np.tile(window[:2], 2), np.tile(window[2:], 2))
                rows.append((part, kind, score - 0.001 * number, number, at))
    crops = None
    if masks is not None:
        crops = []
        for part, _, _, _, at in rows:
            x0, y0, x1, y1 = part.astype(int)
            crops.append(crop_mask(masks[at][y0:y1, x0:x1], x0, y0))
    return TileDetections(
        boxes=np.array([row[0] for row in rows]).reshape(-1, 4),
        scores=np.array([row[2] for row in rows], np.float32),
        classes=np.array([row[1] for row in rows], np.int64),
        window=np.array([row[3] for row in rows], np.int64),
        masks=crops,
    )


def merge(windows, found, *, whole=False, measure="nms", threshold=0.5):
    return TileMerger(np.asarray(windows), whole=whole, measure=measure, threshold=threshold)(found)


def scattered(count, sides, seed=0):
    """Objects of three classes that do not touch each other."""
    random, objects = np.random.default_rng(seed), []
    while len(objects) < count:
        side = random.uniform(*sides, 2)
        corner = random.uniform([0, 0], np.array(SIZE[::-1]) - side)
        box = np.concatenate([corner, corner + side])
        if all((box[:2] > o[2:4]).any() or (box[2:] < o[:2]).any() for o in np.array(objects).reshape(-1, 6)):
            objects.append((*box, random.integers(3), random.uniform(0.5, 1)))
    return objects


@pytest.mark.parametrize("measure", ("nms", "ios"))
@pytest.mark.parametrize("overlap", (0.0, 0.1, 0.3, 0.5))
def test_every_object_once_and_whole(measure, overlap):
    """Objects smaller and larger than what windows have in common, some over four windows and more."""
    windows = Tiling(200, overlap).windows(*SIZE)
    objects = np.array([*scattered(40, (10, 50)), *scattered(3, (150, 300), seed=5)])
    for part in (objects[:40], objects[40:]):
        found = merge(windows, seen(windows, part, least=3), measure=measure)
        assert len(found.scores) == len(part)
        for x0, y0, x1, y1, kind, score in part:
            at = np.abs(found.boxes - [x0, y0, x1, y1]).max(axis=1).argmin()
            np.testing.assert_allclose(found.boxes[at], [x0, y0, x1, y1], atol=1e-9)
            assert found.classes[at] == kind
            assert abs(found.scores[at] - score) < 0.05
    assert (np.diff(found.scores) <= 0).all()


def test_boxes_that_are_a_little_off_are_still_one_objects():
    windows = Tiling(200, 0.3).windows(*SIZE)
    objects = scattered(60, (15, 40))
    found = merge(windows, seen(windows, objects, least=3, noise=np.random.default_rng(1)))
    assert len(found.scores) == len(objects)


def test_what_a_border_cuts_is_left_to_the_window_that_shows_it_whole():
    """The sliver has another class and the better score, and still is no detection of its own."""
    windows = [[0, 0, 100, 100], [80, 0, 180, 100]]
    found = TileDetections(
        np.array([[96.0, 40, 100, 60], [96.0, 40, 116, 60]]), np.array([0.9, 0.6]), np.array([1, 0]), np.array([0, 1])
    )
    kept = merge(windows, found)
    assert kept.boxes.tolist() == [[96, 40, 116, 60]] and kept.classes.tolist() == [0]


def test_neighbours_of_one_class_stay_two():
    windows = [[0, 0, 100, 100], [80, 0, 180, 100]]
    objects = [(70, 40, 88, 60, 0, 0.9), (90, 40, 115, 60, 0, 0.8), (90, 62, 130, 80, 0, 0.7)]
    assert len(merge(windows, seen(windows, objects)).scores) == 3


def test_detections_of_one_window_are_left_to_the_detector():
    windows = [[0, 0, 100, 100], [80, 0, 180, 100]]
    found = TileDetections(
        np.array([[20.0, 20, 60, 60], [22.0, 22, 60, 60]]), np.array([0.9, 0.8]), np.zeros(2, int), np.zeros(2, int)
    )
    assert len(merge(windows, found).scores) == 2


def test_the_measures_differ_as_they_say():
    """A box within another one: 0.25 over the union, 1 over the smaller."""
    windows = [[0, 0, 100, 100], [20, 0, 120, 100]]
    found = TileDetections(
        np.array([[40.0, 40, 60, 60], [40.0, 40, 50, 50]]), np.array([0.9, 0.8]), np.zeros(2, int), np.arange(2)
    )
    assert len(merge(windows, found, measure="nms").scores) == 2
    assert len(merge(windows, found, measure="nms", threshold=0.25).scores) == 1
    assert len(merge(windows, found, measure="ios").scores) == 1


def test_the_whole_image_is_a_window_that_finds_what_is_larger_than_windows():
    tiles = Tiling(200, 0.2).windows(*SIZE)
    windows = np.concatenate([tiles, [[0, 0, SIZE[1], SIZE[0]]]])
    large, small = (50.0, 60, 650, 560, 0, 0.7), (300.0, 300, 330, 330, 1, 0.9)
    parts = seen(windows, [large, small], least=3)
    # The detector is unsure of the parts' classes, but not of all.
    kept = merge(windows, parts, whole=True)
    assert sorted(kept.classes.tolist()) == [0, 1]
    np.testing.assert_allclose(kept.boxes[kept.classes == 0], [large[:4]])


def test_masks_of_parts_are_united():
    windows = Tiling(200, 0.2).windows(*SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = (x - 330) ** 2 + (y - 280) ** 2 < 150**2
    box = (x[disc].min(), y[disc].min(), x[disc].max() + 1, y[disc].max() + 1)
    found = merge(windows, seen(windows, [(*box, 0, 0.9)], masks=[disc]))
    assert found.boxes.tolist() == [list(box)]
    np.testing.assert_array_equal(paste_crop_masks(found.masks, *SIZE).numpy()[0], disc)


def test_nothing_found_and_one_window():
    nothing = TileDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros(0, int), [])
    for windows in (Tiling(200, 0.2).windows(*SIZE), [[0, 0, 700, 600]]):
        assert len(merge(windows, nothing).scores) == 0
    objects = scattered(5, (10, 50))
    assert len(merge([[0, 0, 700, 600]], seen([[0, 0, 700, 600]], objects)).scores) == 5
