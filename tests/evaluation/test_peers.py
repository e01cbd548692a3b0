"""Evaluators against what Detectron2, panopticapi and lvis-api computed; see peer_cases.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import peer_cases as cases


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("case", cases.CASES)
def test_numbers_are_those_of_the_real_packages(case, tmp_path):
    golden = json.loads(cases.GOLDEN.read_text())[case]
    cases.check(cases.CASES[case][0](tmp_path), golden)


def test_cityscapes_scores_by_its_package(tmp_path):
    pytest.importorskip("cityscapesscripts", reason="needs cityscapesscripts")
    found = cases.our_cityscapes(tmp_path)
    # The mean IoU over the classes that occur, from the confusion of training ids.
    counts = np.zeros((20, 20), np.int64)
    table = np.full(256, 19)
    for at, label in enumerate(cases.LABELS):
        table[label.id] = at
    for name, labels, _ in cases.make_cityscapes(tmp_path):
        path = tmp_path / "cityscapes/gtFine/val" / f"{name.removesuffix('_leftImg8bit')}_gtFine_labelIds.png"
        truth = table[np.array(cases.Image.open(path))]
        counts += np.bincount(20 * labels.ravel() + truth.ravel(), minlength=400).reshape(20, 20)
    right, known = counts.diagonal()[:19], counts[:19, :19]
    iou = right / (known.sum(0) + known.sum(1) - right)
    assert found["sem_seg/IoU"] == pytest.approx(100 * np.nanmean(iou))
    assert 0 < found["segm/AP"] < found["segm/AP50"] < 100


def test_cityscapes_without_its_package_is_a_sentence(monkeypatch):
    from se_det.errors import ConfigError
    from se_det.evaluation.cityscapes_eval import package

    monkeypatch.setitem(sys.modules, "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", None)
    with pytest.raises(ConfigError, match=r"pip install 'se_det\[cityscapes\]'"):
        package("evalPixelLevelSemanticLabeling", "cityscapes_sem_seg")
