"""Resizing against Detectron2's sizes and Pillow's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from se_det.data.transforms import resize_image, short_side_size, to_tensor


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
