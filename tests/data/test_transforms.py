"""Resizing and flipping against Detectron2's numbers and Pillow's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from se_det.data.transforms import Geometry, ResizeAndFlip, resize_image, short_side_size, to_tensor
from se_det.errors import ConfigError


@pytest.mark.parametrize(
    ("asked", "expected"),
    [  # what Detectron2's ResizeShortestEdge.get_output_shape gives
        ((480, 640, 800, 1333), (800, 1067)),
        ((640, 480, 800, 1333), (1067, 800)),
        ((427, 640, 800, 1333), (800, 1199)),
        ((333, 500, 800, 1333), (800, 1201)),
        ((326, 640, 800, 1333), (679, 1333)),
        ((640, 120, 320, 1333), (1333, 250)),
        ((375, 500, 333, 400), (300, 400)),
        ((101, 37, 37, 90), (90, 33)),
        ((1, 3, 5, 100), (5, 15)),
        ((612, 612, 640, 640), (640, 640)),
        ((640, 427, 672, 1333), (1007, 672)),
        ((387, 311, 800, 1333), (995, 800)),  # 995.498
        ((394, 311, 800, 1333), (1014, 800)),  # 1013.505
        ((311, 394, 800, 1333), (800, 1014)),
    ],
)
def test_sizes_are_detectron2s(asked: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert short_side_size(*asked) == expected


def test_size_0_leaves_the_image_and_no_side_becomes_0() -> None:
    assert short_side_size(123, 45, 0, 10) == (123, 45)
    assert short_side_size(1, 5000, 800, 1333) == (1, 1333)


def test_boxes_and_polygons_are_detectron2s() -> None:
    # From Detectron2's ResizeTransform(100, 150, 67, 101) followed by HFlipTransform(101) or VFlipTransform(67).
    box = np.array([[10.5, 20.25, 60, 99.5]], np.float32)
    points = np.array([[1.5, 2], [100, 50.25], [30, 90]])
    flipped = Geometry((100, 150), (67, 101), "horizontal")
    np.testing.assert_allclose(flipped.boxes(box), [[60.6, 13.5675, 93.93, 66.665]], rtol=1e-6)
    np.testing.assert_allclose(flipped.points(points), [[99.99, 1.34], [33.666666666666667, 33.6675], [80.8, 60.3]])
    vertical = Geometry((100, 150), (67, 101), "vertical")
    np.testing.assert_allclose(vertical.boxes(box), [[7.07, 0.335, 40.4, 53.4325]], rtol=1e-6)


def test_boxes_are_clipped_to_the_image() -> None:
    boxes = Geometry((100, 200), (50, 100)).boxes(np.array([[-20, -20, 500, 500], [300, 10, 400, 20]], np.float32))
    assert boxes.tolist() == [[0, 0, 100, 50], [100, 5, 100, 10]]
    assert boxes.dtype == np.float32


def photo(height: int, width: int) -> np.ndarray:
    """Smooth waves with noise on top, whose extremes clip."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 140 * np.sin(x / 9 + c) * np.cos(y / 13 - c) for c in range(3)], axis=2)
    noise = np.random.default_rng(1).normal(0, 12, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(38, 57), (80, 120), (200, 300), (119, 179)])
@pytest.mark.parametrize("order", [1, -1])
def test_pil_is_pillow_and_fast_is_near(size: tuple[int, int], order: int) -> None:
    pixels = photo(120, 180)[:, :, ::order]
    expected = np.stack(
        [np.asarray(Image.fromarray(pixels[:, :, c].copy()).resize(size[::-1], Image.BILINEAR)) for c in range(3)],
        axis=2,
    )
    np.testing.assert_array_equal(resize_image(pixels, *size), expected)
    fast = resize_image(pixels, *size, method="fast")
    assert fast.dtype == np.uint8
    difference = np.abs(fast.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_image_and_bitmap_are_flipped_like_the_boxes() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[4:8, 6:16] = 200
    mask = pixels[:, :, 0] // 200
    for flip in ("none", "horizontal", "vertical"):
        geometry = Geometry((20, 30), (40, 60), flip)
        x0, y0, x1, y1 = geometry.boxes(np.array([[6, 4, 16, 8]], np.float32))[0].astype(int)
        expected = np.zeros((40, 60), np.uint8)
        expected[y0:y1, x0:x1] = 1
        np.testing.assert_array_equal(geometry.bitmap(mask), expected)
        inner = geometry.image(pixels)[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]
        assert inner.size and (inner == 200).all()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("method", ["pil", "fast"])
def test_a_flip_is_that_of_the_resized_image(method: str, order: int) -> None:
    pixels = photo(40, 51)[:, :, ::order]
    resized = resize_image(pixels, 67, 83, method=method)
    for flip, expected in (("horizontal", resized[:, ::-1]), ("vertical", resized[::-1])):
        flipped = Geometry((40, 51), (67, 83), flip, method).image(pixels)
        np.testing.assert_array_equal(flipped, expected)
        np.testing.assert_array_equal(to_tensor(flipped).numpy(), expected.transpose(2, 0, 1))


def test_a_bitmap_is_pillows_nearest() -> None:
    mask = (np.random.default_rng(2).random((33, 47)) < 0.4).astype(np.uint8)
    for height, width in ((50, 71), (20, 29)):
        expected = np.asarray(Image.fromarray(mask).resize((width, height), Image.NEAREST))
        np.testing.assert_array_equal(Geometry((33, 47), (height, width)).bitmap(mask), expected)


def test_a_tensor_is_planes_and_ones_own() -> None:
    pixels = photo(5, 7)
    pixels.flags.writeable = False
    tensor = to_tensor(pixels[:, ::-1, ::-1])
    assert tensor.shape == (3, 5, 7) and tensor.is_contiguous()
    assert tensor[0, 2, 1].item() == pixels[2, 5, 2]
    shared = to_tensor(pixels[:, ::-1, ::-1], shared=True)
    assert shared.is_shared() and not tensor.is_shared() and torch.equal(shared, tensor)
    one = np.zeros((1, 1, 3), np.uint8)
    one.flags.writeable = False
    to_tensor(one).add_(1)
    assert one.max() == 0


def test_draws_cover_the_choices_evenly() -> None:
    geometries = [
        ResizeAndFlip(short_sides=(32, 48), max_size=999).draw(64, 64, np.random.default_rng((5, n)))
        for n in range(2000)
    ]
    shares = [np.mean([g.new == (32, 32) for g in geometries]), np.mean([g.flip == "horizontal" for g in geometries])]
    assert all(0.45 < share < 0.55 for share in shares), shares
    ranged = ResizeAndFlip(short_sides=(30, 33), max_size=999, sampling="range", flip="none")
    drawn = [ranged.draw(64, 64, np.random.default_rng(n)) for n in range(200)]
    assert {g.new[0] for g in drawn} == {30, 31, 32, 33}
    assert {g.flip for g in drawn} == {"none"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sampling": "choices"}, "INPUT.MIN_SIZE_TRAIN_SAMPLING 'choices' is unknown: use one of choice, range"),
        ({"flip": "both"}, "INPUT.RANDOM_FLIP 'both'"),
        ({"method": "cv2"}, "INPUT.RESIZE 'cv2'"),
        ({"short_sides": ()}, r"INPUT.MIN_SIZE_TRAIN is \(\)"),
        ({"short_sides": (800,), "sampling": "range"}, r"INPUT.MIN_SIZE_TRAIN is \(800,\).*two sizes"),
        ({"short_sides": (9, 8), "sampling": "range"}, "two sizes, the lower first"),
        ({"max_size": 0}, "INPUT.MAX_SIZE_TRAIN is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ResizeAndFlip(**{"short_sides": (800,), "max_size": 1333, **change})
