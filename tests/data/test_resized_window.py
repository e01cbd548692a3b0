"""Windows of resized images beside the same of all of it."""

from __future__ import annotations

import numpy as np
import pytest

from se_det.data.resized_window import _exact, _whole_steps, resize_window
from se_det.data.transforms import RESIZE_METHODS, resize_image


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_a_window_is_that_of_all_of_it_to_the_last_bit(method: str) -> None:
    assert _exact(method)  # else there are no windows to compare
    random, smaller = np.random.default_rng(0), 0
    for number in range(200):
        height, width = random.integers(1, 150, 2).tolist()
        new = [max(int(side * random.uniform(0.7, 3.5)), 1) for side in (height, width)]
        if number % 4 == 0:  # sizes whose steps are short
            new = [side // 32 * 32 or side for side in new]
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)[:, :, :: 1 if number % 2 else -1]
        first = [int(random.integers(side)) for side in new]
        rows, columns = (slice(at, int(random.integers(at, side + 1))) for at, side in zip(first, new))
        window = resize_window(pixels, *new, rows, columns, method=method)
        np.testing.assert_array_equal(window, resize_image(pixels, *new, method=method)[rows, columns])
        smaller += height < new[0] and width < new[1] and window.size < 0.5 * np.prod(new) * 3
    assert smaller > 60


def test_the_ends_of_steps_are_numbers_in_single_precision() -> None:
    random, shorter = np.random.default_rng(0), 0
    for _ in range(1000):
        old = int(random.integers(2, 5000))
        new = int(random.integers(old, 4 * old))
        start = int(random.integers(new))
        stop = int(random.integers(start + 1, new + 1))
        first, last = _whole_steps(slice(start, stop), old, new)
        assert 0 <= first <= start < stop <= last <= new
        for end in (first, last):
            assert float(np.float32(end * old / new)) * new == end * old  # exact: both sides are whole numbers
        shorter += last - first < new
    assert shorter > 200
