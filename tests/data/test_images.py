"""Reading images of all kinds."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from se_det.data import images, read_coco, read_image
from se_det.data.sixteen_bit import warn_dark
from se_det.errors import DataError

# Red, green / blue, white, and a yellow fifth and sixth: no turn of it looks like another.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0], [255, 255, 0]], [[0, 0, 255], [255, 255, 255], [0, 0, 0]]], np.uint8)

# How a camera stores a picture that is to be shown as `shown`, by the EXIF standard's table of what row 0 and column 0
# of the stored picture are in the shown one.
STORED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],  # row 0 top, column 0 right
    3: lambda shown: shown[::-1, ::-1],  # bottom, right
    4: lambda shown: shown[::-1],  # bottom, left
    5: lambda shown: shown.transpose(1, 0, 2),  # left, top
    6: lambda shown: shown[:, ::-1].transpose(1, 0, 2),  # right, top
    7: lambda shown: shown[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda shown: shown[::-1].transpose(1, 0, 2),  # left, bottom
}


# How each format stores an orientation, without loss.
WITH_ORIENTATION = {
    "png": {},
    "webp": {"lossless": True},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
    "tiff": {},
    "lzw.tiff": {"compression": "tiff_lzw"},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", WITH_ORIENTATION)
def test_exif_rotation_is_applied(tmp_path: Path, ending: str, orientation: int) -> None:
    shown = np.repeat(np.repeat(CORNERS, 16, 0), 16, 1)  # lossy AVIF keeps patches
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"turned.{ending}"
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](shown)))
    stored.save(path, exif=exif, **WITH_ORIENTATION[ending])
    np.testing.assert_allclose(read_image(path, "RGB").astype(int), shown, atol=6 if ending == "avif" else 0)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("pages", [1, 2])
def test_a_tiff_of_16_bits_or_several_pages_is_turned_once(tmp_path: Path, orientation: int, pages: int) -> None:
    shown = CORNERS[:, :, 0].astype(np.uint16) * 256
    stored = np.ascontiguousarray(STORED[orientation](shown[..., None])[..., 0])
    image = Image.fromarray(stored)
    more = [Image.fromarray(np.zeros_like(stored))] * (pages - 1)
    image.save(tmp_path / "deep.tif", tiffinfo={274: orientation}, save_all=True, append_images=more)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tif", "RGB")[..., 1], CORNERS[:, :, 0])


def test_channels_are_in_the_order_asked_for(tmp_path: Path) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", "RGB")[0, 0].tolist() == [255, 0, 0]
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [0, 0, 255]


def test_other_modes_become_three_channels(tmp_path: Path) -> None:
    grey = np.array([[0, 100, 255], [7, 8, 9]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([CORNERS, np.full((2, 3), 9, np.uint8)])).save(tmp_path / "alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(grey > 50).save(tmp_path / "bits.png")
    Image.fromarray(CORNERS).quantize(6).save(tmp_path / "palette.png")
    expected = {
        "grey.png": np.dstack([grey] * 3),
        "alpha.png": CORNERS,
        "grey16.png": np.dstack([grey] * 3),
        "bits.png": np.dstack([np.where(grey > 50, 255, 0)] * 3),
        "palette.png": CORNERS,
    }
    for name, pixels in expected.items():
        read = read_image(tmp_path / name, "RGB")
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, pixels, err_msg=name)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[..., 0] = 255  # full cyan: no red
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "cmyk.jpg", "RGB")[8, 8].astype(int), [0, 255, 255], atol=2)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    Image.fromarray(noise).save(tmp_path / "whole.png")
    for name in ("whole.jpg", "whole.png"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name.replace("whole", "torn")).write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tiff")
    for name, reason in (
        ("torn.jpg", "cannot be read: .*truncated"),
        ("torn.png", "cannot be read: .*truncated"),
        ("empty.jpg", "the file is empty"),
        ("text.jpg", "it is no image of a known format"),
        ("float.tiff", "floating-point"),
        ("none.jpg", "is not there"),
        (".", "Is a directory"),
    ):
        with pytest.raises(DataError, match=reason) as error:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_pixel_values_beyond_16_bits_are_refused_and_within_are_scaled(tmp_path: Path) -> None:
    for values, expected in (([0, 256, 65535], [0, 1, 255]), ([0, 5, 65536], None), ([-1, 5, 6], None)):
        Image.fromarray(np.array([values], np.int32)).save(tmp_path / "i.tiff")
        if expected is None:
            with pytest.raises(DataError, match="32-bit numbers beyond 65535"):
                read_image(tmp_path / "i.tiff")
        else:
            assert read_image(tmp_path / "i.tiff")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("settings", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2, "progressive": True}])
def test_jpegs_have_pillows_pixels(tmp_path: Path, mode: str, settings: dict) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (45, 61, 3), np.uint8)  # no side is of whole blocks
    path = tmp_path / "noise.jpg"
    Image.fromarray(noise).convert(mode).save(path, quality=80, **settings)
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(read_image(path, "RGB"), expected)
    np.testing.assert_array_equal(read_image(path, "BGR"), expected[:, :, ::-1])


def test_pillow_decodes_where_opencv_would_give_other_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grey.jpg"
    Image.new("RGB", (24, 16), (200, 100, 50)).save(path)
    expected = read_image(path)
    monkeypatch.setattr(images, "_by_opencv", lambda data, format: np.zeros((16, 24, 3), np.uint8))
    assert not read_image(path).any()
    monkeypatch.setattr(images, "_decoders_agree", images._decoders_agree.__wrapped__)
    np.testing.assert_array_equal(read_image(path), expected)


def test_a_jpeg_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg cannot be read: it is no file\. Replace"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match=r"The annotation file .*pipe\.jpg cannot be read: it is no file\."):
        read_coco(tmp_path / "pipe.jpg", tmp_path)
    with pytest.raises(DataError, match=r"The annotation file /dev/zero cannot be read: it is no file\."):
        read_coco("/dev/zero", tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_16_bits_make_black_are_told_of_once(tmp_path: Path, caplog, channels: int) -> None:
    values = np.full((8, 8, channels), 200, np.uint16).squeeze()
    cv2.imwrite(str(tmp_path / "dark.png"), values)
    cv2.imwrite(str(tmp_path / "light.png"), values * 200)
    warn_dark.cache_clear()
    read_image(tmp_path / "light.png")
    assert not caplog.records
    for _ in range(2):
        assert read_image(tmp_path / "dark.png").max() == 0
    (record,) = caplog.records
    assert "no value above 16383 of 65535" in record.getMessage() and "--fix" in record.getMessage()
    warn_dark.cache_clear()
