"""Any bytes where an image is expected: pixels, or a refusal in a sentence, the same from everything that reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fuzz_limits import NUMBERS, files_below, try_many
from fuzz_pictures import image_files, pictures

from se_det.classification.data.decoding import decode_image
from se_det.data import read_image
from se_det.data.check.image_files import inspect
from se_det.errors import SeDetError
from se_det.inference import Predictor
from se_det.inference.predict_files import predict_files
from se_det.inference.sources import find_sources

LARGE = 4_000_000  # px; what is larger is not detected in here, which would take long


def pixels_or_none(path: Path) -> np.ndarray | None:
    try:
        pixels = read_image(path)
    except SeDetError as error:
        assert str(path) in str(error) and len(str(error)) < 1000
        return None
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    return pixels


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::hypothesis.errors.HypothesisWarning")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("number", NUMBERS)
def test_images_are_read_or_refused(tmp_path: Path, predictor: Predictor, number: int) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    path = folder / "a.png"
    (tmp_path / "outside.txt").write_text("mine")
    read = 0

    def attempt(data: bytes) -> None:
        nonlocal read
        for file in out.iterdir():
            file.unlink()
        path.write_bytes(data)
        before = files_below(tmp_path)
        pixels = pixels_or_none(path)
        found = inspect(folder, path.name)
        assert (found.fault is None) == (pixels is not None), found.detail
        try:
            again = decode_image(data, "a.png")
        except SeDetError:
            again = None
        assert (again is None) == (pixels is None)
        if pixels is None or pixels.size < 3 * LARGE:
            summary = predict_files(predictor, find_sources([str(path)], out)[0], out)
            # An image that no file can hold once it is drawn is detected in and told of.
            drawn = summary.images and "not drawn" not in " ".join(summary.failures)
            assert (summary.images, len(summary.failures)) == (int(pixels is not None), int(not drawn))
            assert {file.name for file in out.iterdir()} == {"detections.json", *(["a.png"] if drawn else [])}
            json.loads((out / "detections.json").read_bytes())
            read += summary.images
        now = {p: v for p, v in files_below(tmp_path).items() if not p.startswith(f"{out}/")}
        assert now == before

    try_many(number, image_files(), attempt)
    assert read > number // 10  # of which enough were images


def test_the_sound_ones_are_sound(tmp_path: Path) -> None:
    for name, data in pictures().items():
        (tmp_path / "a").write_bytes(data)
        assert (pixels_or_none(tmp_path / "a") is None) == (name in ("tiff float", "tiff 32")), name


def test_no_file_is_handed_to_another_program(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(SeDetError, match="no image of a known format"):
        read_image(tmp_path / "a.png")
