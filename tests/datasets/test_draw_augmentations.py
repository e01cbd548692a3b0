"""The picture of all augmentations."""

from __future__ import annotations

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from se_det.data.augmentations import AUGMENTATIONS
from tests.training.small_detector import draw

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "draw_augmentations.py"


def test_each_augmentation_has_a_cell_that_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    json, images = draw(tmp_path / "data", 4)
    picture = str(tmp_path / "all.png")
    monkeypatch.setattr("sys.argv", ["draw", "--json", json, "--images", images, "--image", "1", "--output", picture])
    script = runpy.run_path(str(SCRIPT), run_name="__main__")
    grid = cv2.imread(picture)
    rows, columns = grid.shape[0] // 222, grid.shape[1] // 248
    cells = grid.reshape(rows, 222, columns, 248, 3).swapaxes(1, 2).reshape(-1, 222, 248, 3)[:, :200]
    shown = [cell for cell in cells if (cell != 255).any()]
    assert len(shown) == 1 + len(set(AUGMENTATIONS.names()) - set(script["LEFT_OUT"]))  # and the image as it is
    assert sum(np.array_equal(shown[0], cell) for cell in shown) <= 4  # a few find nothing to do in an image so small
