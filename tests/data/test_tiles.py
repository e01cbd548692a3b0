"""The plan of windows, and what windows show of boxes."""

from __future__ import annotations

import numpy as np
import pytest

from se_det.config import get_cfg, validate_config
from se_det.config.loading import set_key
from se_det.data.tiles import Tiling, shown_boxes, tiling
from se_det.errors import ConfigError


@pytest.mark.parametrize("size", (32, 100, 256))
@pytest.mark.parametrize("overlap", (0.0, 0.2, 0.5, 0.9))
def test_windows_show_every_pixel_and_share_at_least_the_overlap(size, overlap):
    for height, width in ((1000, 777), (size, size), (size + 1, 31), (5, 2 * size), (1, 1)):
        windows = Tiling(size, overlap).windows(height, width)
        seen = np.zeros((height, width), bool)
        for x0, y0, x1, y1 in windows:
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            assert (x1 - x0, y1 - y0) == (min(size, width), min(size, height))
            seen[y0:y1, x0:x1] = True
        assert seen.all()
        assert len(np.unique(windows, axis=0)) == len(windows)
        for axis in (0, 1):
            starts = np.unique(windows[:, axis])
            assert (np.diff(starts) <= size - int(size * overlap)).all()
            if len(starts) > 1:  # no more windows than it takes, evenly spread
                length = (width, height)[axis]
                assert (len(starts) - 2) * (size - int(size * overlap)) < length - size
                assert np.ptp(np.diff(starts)) <= 1


def test_the_usual_plan():
    """4,000 px in windows of 1,024 with a fifth in common: five, 744 px apart."""
    windows = Tiling(1024, 0.2).windows(4000, 1024)
    assert windows.tolist() == [[0, y, 1024, y + 1024] for y in (0, 744, 1488, 2232, 2976)]


def test_shares_of_boxes():
    windows = np.array([[0, 0, 10, 10], [5, 0, 15, 10]])
    boxes = np.array([[8, 0, 12, 10], [-4, 2, 4, 4], [12, 2, 20, 4], [3, 3, 3, 9]], np.float32)
    window, box, share = shown_boxes(boxes, windows, (10, 15))
    # What lies outside of the image is no part of a box; one without area is shown by none.
    assert dict(zip(zip(window.tolist(), box.tolist()), share.tolist())) == {
        (0, 0): 0.5, (1, 0): 1.0, (0, 1): 1.0, (1, 2): 1.0,
    }  # fmt: skip


def test_pairs_do_not_depend_on_how_many_are_compared_at_once(monkeypatch):
    random = np.random.default_rng(0)
    corner = random.uniform(-20, 500, (200, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0, 90, (200, 2))], axis=1)
    windows = Tiling(64, 0.25).windows(480, 500)
    whole = shown_boxes(boxes, windows, (480, 500))
    monkeypatch.setattr("se_det.data.tiles.PAIRS_AT_ONCE", 7)
    for one, other in zip(whole, shown_boxes(boxes, windows, (480, 500))):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("key", "value"),
    (("INPUT.TILE.SIZE", 16), ("TEST.TILE.SIZE", -1), ("TEST.TILE.OVERLAP", 1.0), ("TEST.TILE.MERGE", "wbf"),
     ("INPUT.TILE.EMPTY", 1.0), ("TEST.TILE.THRESHOLD", 0.0)),
)  # fmt: skip
def test_keys_that_cannot_work_are_refused_by_name(key, value):
    cfg = get_cfg()
    set_key(cfg, key, value)
    with pytest.raises(ConfigError, match=key):
        validate_config(cfg)


def test_off_by_default():
    cfg = get_cfg()
    assert tiling(cfg.INPUT.TILE) is None and tiling(cfg.TEST.TILE) is None
