"""The baseline without learning: it does find shapes where colour shows them, and stays low on the data set."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


@pytest.fixture(scope="module")
def baseline():
    sys.path.insert(0, str(DATASETS))  # for the whole module: the tests import another script of the folder
    import shape_baseline

    yield shape_baseline
    sys.path.remove(str(DATASETS))


@pytest.fixture(scope="module")
def templates(baseline):
    return baseline.Templates()


@pytest.mark.parametrize("category", range(5))
def test_plain_shapes_are_found(baseline, templates, category):
    image = np.full((200, 260, 3), (200, 180, 60), np.uint8)
    mask = baseline.shape_mask(baseline.CLASSES[category], 90, 0.7, 0.8, 0.1)
    height, width = mask.shape
    image[50 : 50 + height, 80 : 80 + width][mask] = (40, 60, 190)
    found, score, pixels = baseline.detect(image, templates)[0]
    truth = np.zeros(image.shape[:2], bool)
    truth[50 : 50 + height, 80 : 80 + width] = mask
    assert found == category
    assert score > 0.85
    assert (pixels & truth).sum() / (pixels | truth).sum() > 0.85


def test_score_is_100_for_the_truth(baseline, tmp_path):
    import make_shapes

    folder = make_shapes.make_shapes(tmp_path, 1, 4, seed=2)
    coco = COCO(str(folder / "annotations" / "instances_val.json"))
    truth = [
        {**{key: a[key] for key in ("image_id", "category_id", "bbox")}, "segmentation": coco.annToRLE(a), "score": 1.0}
        for a in coco.anns.values()
    ]
    assert baseline.score(coco, truth) == pytest.approx(
        {"bbox AP": 100, "bbox AP50": 100, "segm AP": 100, "segm AP50": 100}
    )


@pytest.mark.slow
def test_it_stays_below_20_on_the_data_set(baseline, tmp_path):
    import make_shapes

    folder = make_shapes.make_shapes(tmp_path, 1, 100)
    coco = COCO(str(folder / "annotations" / "instances_val.json"))
    numbers = baseline.score(coco, baseline.results_of(coco, folder / "val"))
    assert 5 < numbers["bbox AP50"] < 20
    assert 5 < numbers["segm AP50"] < 20
