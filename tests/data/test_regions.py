"""Windows of image files are the pixels of the whole file, and a TIFF gives them without being read as a whole."""

from __future__ import annotations

import logging
import struct
import tracemalloc
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiff_files import write_tiff

from se_det.data import regions
from se_det.data.images import read_image
from se_det.data.regions import DecodedRegions, FileRegions, OpenImages, open_regions, read_at_any_size, reduced
from se_det.errors import DataError

HEIGHT, WIDTH = 75, 110
WINDOWS = ((0, 0, WIDTH, HEIGHT), (10, 20, 60, 41), (100, 70, WIDTH, HEIGHT), (33, 5, 34, 6))


def picture(channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, channels)).astype(dtype)
    values = values if dtype is np.uint8 else values * 257
    return values[:, :, 0] if channels == 1 else values


def check_windows(path: Path, format: str = "BGR") -> None:
    image, whole = open_regions(path, format), read_image(path, format)
    assert (image.height, image.width) == whole.shape[:2]
    for fraction in WINDOWS:
        x0, x1 = (min(x, image.width - 1 + at) for at, x in enumerate(fraction[::2]))
        y0, y1 = (min(y, image.height - 1 + at) for at, y in enumerate(fraction[1::2]))
        np.testing.assert_array_equal(image.read((x0, y0, x1, y1)), whole[y0:y1, x0:x1])
    image.close()


@pytest.mark.parametrize("layout", ({"tile": (32, 48)}, {"rows": 7}, {}), ids=("tiles", "strips", "one strip"))
def test_windows_of_a_tiff_are_those_of_the_whole(layout, tmp_path):
    """Against Pillow, which decodes all of it."""
    path = tmp_path / "a.tif"
    for channels, dtype, order, deflate in product((1, 3, 4), (np.uint8, np.uint16), "<>", (False, True)):
        write_tiff(path, picture(channels, dtype), order=order, deflate=deflate, **layout)
        assert isinstance(open_regions(path), FileRegions)
        check_windows(path)
    check_windows(path, "RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_upright(orientation, tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, picture(), tile=(16, 32), orientation=orientation)
    assert isinstance(open_regions(path), FileRegions)
    check_windows(path)


@pytest.mark.parametrize("compression", ("tiff_lzw", "jpeg", "packbits", "group4", "tiff_adobe_deflate"))
def test_what_pillow_compresses(compression, tmp_path):
    path = tmp_path / "a.tif"
    image = Image.fromarray(picture())
    if compression == "group4":
        image = image.convert("1")
    image.save(path, compression=compression)
    assert isinstance(open_regions(path), FileRegions)
    check_windows(path)
    Image.fromarray(picture()).quantize(50).save(path, compression="tiff_lzw")  # with a palette
    check_windows(path)


@pytest.mark.parametrize("name", ("a.png", "a.jpg", "a.jp2", "a.webp"))
def test_other_formats_are_decoded_once(name, tmp_path):
    cv2.imwrite(str(tmp_path / name), picture())
    assert isinstance(open_regions(tmp_path / name), DecodedRegions)
    check_windows(tmp_path / name)


def test_what_is_not_stored_in_parts_is_read_as_a_whole(tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, picture(), rows=7, planar=True)
    assert isinstance(open_regions(path), DecodedRegions)
    check_windows(path)


def test_tiles_without_bytes_are_black(tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, picture(), tile=(32, 32), left_out=(1,))
    pixels = open_regions(path).read((0, 0, 64, 32))
    assert not pixels[:, 32:].any()
    np.testing.assert_array_equal(pixels[:, :32], picture()[:32, :32, ::-1])


@pytest.mark.slow
def test_a_large_tiff_is_not_in_memory(tmp_path):
    """30,000 x 30,000 px in a file of holes: 2.7 GB of pixels, more than Pillow opens."""
    path = tmp_path / "a.tif"
    side = 30_000
    path.write_bytes(_holes(side, 240, (side // 240) ** 2))
    tracemalloc.start()
    image = open_regions(path)
    assert (image.height, image.width) == (side, side)
    for at in range(0, side - 1000, 1000):
        image.read((at, at, at + 1000, at + 1000))
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()
    assert reduced(image, 100).shape == (300, 300, 3)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(path)
    assert max(read_at_any_size(path).shape) < side


def _holes(side: int, tile: int, tiles: int) -> bytes:
    """A grey TIFF whose tiles all have no bytes."""
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 277: 1, 284: 1, 322: tile, 323: tile}
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    entries += struct.pack("<HHII", 324, 4, tiles, start) + struct.pack("<HHII", 325, 4, tiles, start + 4 * tiles)
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 2) + entries + bytes(4) + bytes(8 * tiles)


def test_a_file_that_ends_early_is_told_by_its_window(tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, picture(), rows=8)
    path.write_bytes(path.read_bytes()[: -HEIGHT * WIDTH])
    image = open_regions(path)
    image.read((0, 0, 20, 20))
    with pytest.raises(DataError, match=r"a\.tif cannot be read in the window \(0, 60, 20, 75\).*truncated"):
        image.read((0, 60, 20, 75))


def test_what_is_no_image_is_refused_as_elsewhere(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 nothing")
    with pytest.raises(DataError, match="cannot be read"):
        open_regions(tmp_path / "a.tif")
    with pytest.raises(DataError, match="is not there"):
        open_regions(tmp_path / "b.tif")


def test_an_image_too_large_for_its_format_has_a_remedy(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture())
    monkeypatch.setattr(regions, "LARGE", HEIGHT * WIDTH)
    with caplog.at_level(logging.WARNING):
        open_regions(path)
    assert "was decoded as a whole" in caplog.text and "tiled TIFF" in caplog.text
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"a\.png cannot be decoded as a whole.*tiled TIFF"):
        open_regions(path)


def test_a_dark_part_is_not_told_of(tmp_path, caplog):
    from se_det.data import sixteen_bit

    sixteen_bit.warn_dark.cache_clear()
    values = np.full((64, 64), 60_000, np.uint16)
    values[:32] = 5
    write_tiff(tmp_path / "a.tif", values, tile=(32, 32))
    open_regions(tmp_path / "a.tif").read((0, 0, 32, 32))
    assert "16 bits" not in caplog.text


def test_open_images_are_few_and_not_shared_with_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "OPEN_BYTES", 2 * HEIGHT * WIDTH * 3)
    for at in range(4):
        cv2.imwrite(str(tmp_path / f"{at}.png"), picture())
    opened = OpenImages("BGR")
    for at in (0, 1, 0, 2, 3):
        opened[tmp_path / f"{at}.png"].read((0, 0, 5, 5))
    assert len(opened._open) == 2
    first = opened[tmp_path / "3.png"]
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert opened[tmp_path / "3.png"] is not first
