"""Each format, written by a writer of its own, reads back with the same classes, boxes and masks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageDraw

from se_det.data.formats import OpenedData, open_data
from se_det.data.rle import bitmap
from tests.data.formats import writers
from tests.data.formats.writers import CLASSES, NAMES, Sample, random_set


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))


def mask_of(dataset, i: int, k: int) -> np.ndarray | None:
    """The mask of annotation `k` of image `i`: an RLE's, or a polygon's, drawn eight times as large."""
    info, found = dataset.image(i), dataset.annotations(i)
    if k in found.runs_owner.tolist():
        runs = found.runs[found.runs_owner.tolist().index(k)]
        return bitmap(runs, info.height, info.width).astype(bool)
    picture = Image.new("L", (info.width * 8, info.height * 8))
    ends = np.cumsum(found.polygon_points)
    for end, points, owner in zip(ends, found.polygon_points, found.polygon_owner):
        if owner == k:
            ImageDraw.Draw(picture).polygon(
                [tuple(p) for p in (found.polygons[end - points : end] * 8).tolist()], fill=255
            )
    return np.asarray(picture.resize((info.width, info.height), Image.Resampling.BOX)) > 127


def check_equal(data: OpenedData, samples: list[Sample], *, off: float, negatives: bool = True, masks: bool = False):
    for split in dict.fromkeys(s.split for s in samples):
        wanted = {s.name: s for s in samples if s.split == split and (negatives or s.things)}
        dataset = data.splits[split].read()
        assert sorted(p.rsplit("/", 1)[-1] for p in dataset.file_names) == sorted(wanted)
        dataset.check_files_exist()
        for i, name in enumerate(dataset.file_names):
            sample = wanted[name.rsplit("/", 1)[-1]]
            found = dataset.annotations(i)
            assert (dataset.image(i).width, dataset.image(i).height) == (sample.width, sample.height)
            named = [dataset.category_names[c] for c in found.classes]
            assert named == [CLASSES[t.label] for t in sample.things]
            if not masks:
                np.testing.assert_allclose(found.boxes, [t.box for t in sample.things] or np.zeros((0, 4)), atol=off)
            for k, thing in enumerate(sample.things if masks else ()):
                mask = mask_of(dataset, i, k)
                assert (mask & thing.mask).sum() / (mask | thing.mask).sum() > 0.98
                rows, columns = np.flatnonzero(thing.mask.any(1)), np.flatnonzero(thing.mask.any(0))
                extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                np.testing.assert_allclose(found.boxes[k], extent, atol=1.01)


BOXES = {
    "yolo": (writers.yolo, 2e-5, True),
    "voc 1-based": (writers.voc, 0, True),
    "labelme": (writers.labelme, 0, True),
    "cvat": (writers.cvat, 0.005, True),
    "csv tensorflow": (writers.csv_tensorflow, 0, False),
    "csv retinanet": (writers.csv_retinanet, 0, True),
    "csv semicolon": (partial(writers.csv_retinanet, delimiter=";"), 0, True),
    "csv tab": (partial(writers.csv_retinanet, delimiter="\t"), 0, True),
    "open images": (writers.open_images, 2e-5, False),
    "coco": (writers.coco, 0, True),
    "coco roboflow": (writers.roboflow_coco, 0, True),
}
MASKS = {
    "yolo": partial(writers.yolo, polygons=True),
    "labelme polygon": partial(writers.labelme, shape="polygon"),
    "labelme mask": partial(writers.labelme, shape="mask"),
    "cvat polygon": partial(writers.cvat, shape="polygon"),
    "cvat mask": partial(writers.cvat, shape="mask"),
    "coco polygon": writers.coco,
    "coco rle": partial(writers.coco, rle=True),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", BOXES)
def test_boxes(form, seed, tmp_path):
    write, off, negatives = BOXES[form]
    samples = random_set(seed, splits=("train", "val", "test"))
    (root := tmp_path / "set").mkdir()
    write(samples, root)
    data = open_data(root)
    check_equal(data, samples, off=off, negatives=negatives)
    assert list(data.splits) == ["train", "val", "test"]
    assert data.skipped.total() == (0 if negatives else 3)  # images without objects, which have no row


@pytest.mark.parametrize("form", MASKS)
def test_masks(form, tmp_path):
    samples = random_set(5, masks=True, splits=("train", "val"))
    (root := tmp_path / "set").mkdir()
    MASKS[form](samples, root)
    data = open_data(root)
    check_equal(data, samples, off=1, masks=True)


def test_voc_masks(tmp_path):
    samples = random_set(7, masks=True)
    for sample in samples:
        del sample.things[1:]  # one picture of numbers holds no two objects at a pixel
    (root := tmp_path / "set").mkdir()
    writers.voc(samples, root, masks=True)
    check_equal(open_data(root), samples, off=1, masks=True)


def test_voc_that_counts_from_0(tmp_path):
    samples = random_set(1)
    _, y1, x2, y2 = samples[0].things[0].box
    samples[0].things[0].box = (0, y1, x2, y2)
    writers.voc(samples, tmp_path / "set", base=0)
    data = open_data(tmp_path / "set")
    check_equal(data, samples, off=0)
    assert "counted from 0" in " ".join(data.notes)


def test_the_names_are_odd_enough():
    assert any(" " in name for name in NAMES) and any(not name.isascii() for name in NAMES)
    assert {name.rsplit(".")[-1] for name in NAMES} >= {"JPG", "jpg", "PNG", "png"}
