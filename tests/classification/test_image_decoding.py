"""Images of all kinds, and images that are broken."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from picture_sets import picture
from PIL import Image

from se_det.classification.data.decoding import decode_image
from se_det.errors import DataError


def encoded(image: Image.Image, format: str = "JPEG", **how) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **how)
    return data.getvalue()


def photo() -> Image.Image:
    return Image.fromarray(cv2.resize(picture(0, 1), (61, 45), interpolation=cv2.INTER_CUBIC))


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("how", [{"quality": 90}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
def test_jpegs_are_decoded_as_pillow_does(how: dict) -> None:
    data = encoded(photo(), **how)
    np.testing.assert_array_equal(decode_image(data, "x"), pillow(data))


def test_grey_and_cmyk_and_alpha_become_three_channels() -> None:
    grey = encoded(photo().convert("L"))
    np.testing.assert_array_equal(decode_image(grey, "x"), pillow(grey))
    cmyk = encoded(photo().convert("CMYK"), quality=100)
    assert Image.open(io.BytesIO(cmyk)).mode == "CMYK"
    assert np.abs(decode_image(cmyk, "x").astype(int) - np.asarray(photo())).mean() < 8
    alpha = photo().convert("RGBA")
    alpha.putalpha(Image.new("L", alpha.size, 7))
    np.testing.assert_array_equal(decode_image(encoded(alpha, "PNG"), "x"), np.asarray(photo()))
    np.testing.assert_array_equal(decode_image(encoded(photo().convert("L"), "PNG"), "x")[..., 2], photo().convert("L"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    stored = Image.new("RGB", (32, 16), (255, 255, 255))
    stored.paste((0, 0, 0), (0, 0, 8, 8))  # the corner of the stored row 0 and column 0 is dark
    exif = Image.Exif()
    exif[274] = orientation
    upright = decode_image(encoded(stored, exif=exif, quality=95), "x")
    # By the EXIF standard, where the stored first row and column are to be shown.
    row, column = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    assert upright.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    corner = upright[3 if row == "t" else -4, 3 if column == "l" else -4]
    assert corner.max() < 60
    assert (upright.min(2) < 128).sum() == pytest.approx(64, abs=8)


@pytest.mark.parametrize("cut", [0, 3, 20, 300, -200, -2])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_images_are_one_sentence(cut: int, format: str) -> None:
    data = encoded(photo(), format)[:cut]
    if format == "PNG" and cut == -2:
        pytest.skip("the last checksum of a PNG holds no pixels")
    with pytest.raises(DataError, match=r"The image n01/a.jpg cannot be read: .*\. Replace it, or take it out"):
        decode_image(data, "n01/a.jpg")


def test_zeros_after_the_end_are_no_truncation() -> None:
    data = encoded(photo())
    np.testing.assert_array_equal(decode_image(data + bytes(50), "x"), pillow(data))
    np.testing.assert_array_equal(decode_image(data + b"made by a camera", "x"), pillow(data))


def test_what_is_no_image_is_one_sentence() -> None:
    for data, why in (
        (b"", "empty"),
        (b"<html>404</html>", "no image of a known format"),
        (b"\xff\xd8\xff\xd9", "cannot be read"),
    ):
        with pytest.raises(DataError, match=why):
            decode_image(data, "x")


def test_an_image_that_would_fill_the_memory_is_refused() -> None:
    side = 60_000
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))  # noqa: E731
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match="decompression bomb"):
        decode_image(bomb, "x")
    jpeg = bytearray(encoded(photo()))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    with pytest.raises(DataError, match="decompression bomb"):
        decode_image(bytes(jpeg), "x")
