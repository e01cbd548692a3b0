"""Names in any script are drawn with a font that has them, or it is said which characters none has."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from se_det import fonts
from se_det.inference import draw_detections
from se_det.inference.drawing import _printable

HAS_DEJAVU = any(path.name == "DejaVuSans.ttf" for path in fonts.font_files())
needs_dejavu = pytest.mark.skipif(not HAS_DEJAVU, reason="needs the font DejaVu Sans")


@pytest.fixture
def without_fonts(monkeypatch):
    def clear():
        for function in (fonts._covers, fonts.font_of, fonts.can_draw, fonts._warn_missing, fonts._runs):
            function.cache_clear()

    clear()
    monkeypatch.setattr(fonts, "font_files", lambda: ())
    yield
    clear()


def drawn(name: str) -> np.ndarray:
    instances = {"pred_boxes": torch.tensor([[20.0, 60, 280, 190]]), "pred_classes": torch.tensor([0])}
    return draw_detections(np.zeros((240, 320, 3), np.uint8), instances, [name])


@needs_dejavu
@pytest.mark.parametrize("name", ["Żółw", "собака", "σκύλος", "naïve café", "größe 5 µm"])
def test_letters_beyond_ascii_are_drawn(name):
    assert _printable(name, 3) == name
    one, other = drawn(name), drawn(unicodedata.normalize("NFD", name))
    assert (one == other).all() and (one != drawn("class 0")).any()
    assert (one != drawn(name[::-1])).any()


@needs_dejavu
def test_a_mask_has_ink_above_and_below_the_foot():
    mask, below = fonts.text_mask("ягЦ", 20)
    assert mask.dtype == np.uint8 and mask.max() > 200 and mask.shape[0] - below >= 20 and below > 0
    assert (mask[: mask.shape[0] - below].max(axis=0) > 0).mean() > 0.5


def test_without_a_font_it_is_said_once_which_characters_are_missing(without_fonts, caplog):
    assert _printable("犬", 7) == "class 7" and _printable("犬", 7) == "class 7"
    assert _printable("Zażółć", 1) == "Zazoc"  # what is left without accents
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "No font here has 犬:" in told[0] and "Noto Sans CJK" in told[0]
    drawn("犬")


def test_names_without_anything_to_draw_are_numbers():
    assert _printable("\x1b\n", 4) == "class 4" and _printable("", 5) == "class 5" and _printable("dog", 1) == "dog"
    assert _printable("a\nb", 1) == "a b"


@needs_dejavu
def test_a_character_that_a_font_lacks_is_noticed():
    dejavu = next(path for path in fonts.font_files() if path.name == "DejaVuSans.ttf")
    assert fonts._covers(dejavu, "ж") and not fonts._covers(dejavu, "犬") and not fonts._covers(Path("none.ttf"), "a")
