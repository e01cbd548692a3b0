"""Which rows of which head's predictors belong to which class."""

from __future__ import annotations

import pytest
import torch

from se_det.weights.class_rows import ClassRows, class_layout

ROWS = ClassRows(("dog", "bird"), ("cat", "dog", "cow"))  # dog is the file's second class


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


@pytest.mark.parametrize(
    ("key", "theirs", "ours", "kept"),
    [
        # (rows of ours, rows of theirs) that are the same afterwards, the background's among them
        ("roi_heads.box_predictor.cls_score.weight", 4, 3, [(0, 1), (2, 3)]),
        ("roi_heads.box_predictor.2.cls_score.bias", 4, 3, [(0, 1), (2, 3)]),  # of a cascade
        ("roi_heads.box_predictor.bbox_pred.weight", 12, 8, [(k, 4 + k) for k in range(4)]),
        ("roi_heads.mask_head.predictor.weight", 3, 2, [(0, 1)]),
        ("roi_heads.mask_head.point_head.predictor.bias", 3, 2, [(0, 1)]),
        # PointRend's coarse masks, of 2 x 2 here: all cells of a class one after another
        ("roi_heads.mask_head.coarse_head.prediction.weight", 12, 8, [(k, 4 + k) for k in range(4)]),
        # RetinaNet, 3 anchors: all classes of an anchor one after another
        ("head.cls_score.weight", 9, 6, [(0, 1), (2, 4), (4, 7)]),
    ],
)
def test_rows_of_a_class_are_kept(key, theirs, ours, kept):
    tail = () if key.endswith("bias") else (5,)
    file, fresh = numbered(theirs, *tail), -1 - numbered(ours, *tail)
    taken = ROWS.take(key, file, fresh, {})
    same = dict(kept)
    assert taken.shape == fresh.shape
    for row in range(ours):
        assert torch.equal(taken[row], file[same[row]] if row in same else fresh[row]), row


POINT_HEAD = "roi_heads.mask_head.point_head."


def test_columns_that_read_a_class_are_kept():
    """A point head's layers read the features, then the coarse mask of each class; its last has a row for each, too."""
    tensors = {f"{POINT_HEAD}fc1.weight": numbered(6, 4 + 3, 1), f"{POINT_HEAD}fc2.weight": numbered(6, 6 + 3, 1),
               f"{POINT_HEAD}predictor.weight": numbered(3, 6 + 3, 1)}  # fmt: skip
    for name, rows, shared in (("fc1", 6, 4), ("fc2", 6, 6), ("predictor", 2, 6)):
        key, fresh = f"{POINT_HEAD}{name}.weight", -1 - numbered(rows, shared + 2, 1)
        file, taken = tensors[key], ROWS.take(key, tensors[key], fresh, tensors)
        own, theirs = (slice(None), slice(None)) if rows == 6 else ([0], [1])
        assert taken.shape == fresh.shape
        assert torch.equal(taken[own, :shared], file[theirs, :shared])
        assert torch.equal(taken[own, shared], file[theirs, shared + 1]) and not taken[own, shared + 1].any()
        assert rows == 6 or torch.equal(taken[1], fresh[1])  # of a class that is new


def test_columns_of_a_layer_that_reads_no_class_stay():
    """Where only the first layer reads the coarse masks (COARSE_PRED_EACH_LAYER False)."""
    tensors = {f"{POINT_HEAD}fc1.weight": numbered(6, 4 + 3, 1), f"{POINT_HEAD}fc2.weight": numbered(6, 6, 1)}
    file = tensors[f"{POINT_HEAD}fc2.weight"]
    assert torch.equal(ROWS.take(f"{POINT_HEAD}fc2.weight", file, -file, tensors), file)


@pytest.mark.parametrize(
    ("key", "rows"),
    [("roi_heads.box_predictor.0.bbox_pred.weight", 4), ("roi_heads.mask_head.predictor.weight", 1)],
)
def test_a_class_agnostic_layer_is_taken_as_it_is(key, rows):
    file = numbered(rows, 5)
    assert ROWS.take(key, file, -file, {}) is file


def test_what_has_no_class_names_starts_fresh_where_its_shape_differs():
    for key in ("roi_heads.keypoint_head.score_lowres.weight", "sem_seg_head.predictor.weight"):
        assert not class_layout(key).named
    assert class_layout("roi_heads.box_head.fc1.weight") is None and class_layout("head.bbox_pred.weight") is None
