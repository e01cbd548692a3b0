"""Run-length encoding against pycocotools."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from se_det.data.rle import bitmap, decompress_counts, window_counts


def test_compressed_counts_decode_to_what_pycocotools_decodes() -> None:
    random = np.random.default_rng(3)
    masks = []
    for height, width, share in [(1, 1, 0.5), (7, 5, 0.5), (64, 48, 0.01), (300, 400, 0.3), (3, 900, 0.9)] * 3:
        mask = np.asfortranarray(random.random((height, width)) < share, dtype=np.uint8)
        masks.append(mask)
    big = np.zeros((1000, 1200), np.uint8, order="F")  # run lengths of many characters, and negative differences
    big[200:700, 300:500] = 1
    big[0, 0] = big[-1, -1] = 1
    masks += [big, np.zeros((90, 90), np.uint8, order="F"), np.ones((90, 90), np.uint8, order="F")]

    counts, numbers, valid = decompress_counts([coco_mask.encode(mask)["counts"] for mask in masks])

    assert valid.all()
    for mask, runs in zip(masks, np.split(counts, np.cumsum(numbers)[:-1])):
        np.testing.assert_array_equal(bitmap(runs, *mask.shape), mask)


def test_what_is_torn_is_found_and_leaves_its_neighbours_whole() -> None:
    mask = np.zeros((300, 400), np.uint8, order="F")
    mask[20:90, 30:200] = 1
    text = coco_mask.encode(mask)["counts"]
    torn = b"PPP"  # each says that another character follows
    counts, numbers, valid = decompress_counts([text, torn, b"\x20", b"P" * 30 + b"0", text])
    assert valid.tolist() == [True, False, False, False, True]
    parts = np.split(counts, np.cumsum(numbers)[:-1])
    for runs in (parts[0], parts[4]):
        np.testing.assert_array_equal(bitmap(runs, 300, 400), mask)


def test_a_window_is_encoded_as_pycocotools_encodes_the_whole_mask() -> None:
    random = np.random.default_rng(4)
    height, width = 30, 40
    for top, left, rows, columns in [(0, 0, 30, 40), (0, 3, 30, 20), (5, 39, 25, 1), (0, 0, 7, 9), (11, 8, 13, 17),
                                     (0, 0, 0, 0), (30, 40, 0, 0), (4, 4, 0, 6)]:  # fmt: skip
        for share in (0.0, 0.1, 0.5, 0.95, 1.0):
            window = random.random((columns, rows)) < share
            mask = np.zeros((height, width), np.uint8, order="F")
            mask[top : top + rows, left : left + columns] = window.T
            counts = window_counts(window, top, left, height, width)
            rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
            assert rle == coco_mask.encode(mask)
