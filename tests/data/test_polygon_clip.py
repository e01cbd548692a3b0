"""Polygons cut to a rectangle."""

from __future__ import annotations

import numpy as np
from augmentation_samples import drawn

from se_det.data.augmentations.polygon_clip import clip_polygons


def test_a_polygon_that_is_cut_in_two_becomes_two() -> None:
    comb = np.array([[0, 0], [10, 0], [10, 10], [8, 10], [8, 2], [2, 2], [2, 10], [0, 10]], float)
    xy, points, source = clip_polygons(comb, np.array([8]), (-5, 5, 15, 8))
    assert points.tolist() == [4, 4] and source.tolist() == [0, 0]
    assert sorted(map(tuple, xy.tolist())) == sorted([(0, 5), (2, 5), (2, 8), (0, 8), (8, 5), (10, 5), (10, 8), (8, 8)])


def test_polygons_inside_stay_and_those_outside_or_along_the_border_go() -> None:
    square = np.array([[2, 2], [4, 2], [4, 4], [2, 4]], float)
    xy, points, source = clip_polygons(
        np.concatenate([square, square + 10, square - np.array([4, 0]), square]), np.array([4, 4, 4, 4]), (0, 2, 5, 9)
    )
    assert source.tolist() == [0, 3] and points.tolist() == [4, 4]
    np.testing.assert_array_equal(xy, np.concatenate([square, square]))


def test_parts_of_polygons_are_drawn_as_the_whole_is_there() -> None:
    for number in range(200):
        random = np.random.default_rng(number)
        xy = random.uniform(0, 64, (int(random.integers(3, 12)), 2))  # most of these cross themselves
        whole = drawn([xy], 64, 64)
        left, top, right, bottom = (int(v) for v in (*random.integers(0, 30, 2), *random.integers(34, 64, 2)))
        part, points, _ = clip_polygons(xy, np.array([len(xy)]), (left, top, right, bottom))
        seen = np.zeros((64, 64), bool)
        for piece in np.split(part, np.cumsum(points))[:-1]:
            seen ^= drawn([piece], 64, 64).astype(bool)
        expected = np.zeros((64, 64), bool)
        expected[top:bottom, left:right] = whole[top:bottom, left:right]
        assert (seen != expected).sum() <= 0.02 * expected.sum() + 60, number
