"""Images that are made in parts and as planes, beside the whole ones; and when they are made at all."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from augmentation_samples import random_sample
from coco_files import small_set

from se_det.data import samples as samples_module
from se_det.data.augmentations import Sample
from se_det.data.augmentations.combining import Pixels
from se_det.data.augmentations.copy_paste import CopyPaste, PastedImage
from se_det.data.augmentations.crop import Crop
from se_det.data.augmentations.flip import Flip, RandomFlip
from se_det.data.augmentations.large_scale_jitter import LargeScaleJitter, ResizedCrop
from se_det.data.augmentations.lazy_image import LazyImage, MovedImage, stored
from se_det.data.augmentations.resize import Resize
from se_det.data.samples import PartnerError, TrainDataset


def image_of(seed: int, height: int = 60, width: int = 80) -> LazyImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return LazyImage((height, width), lambda: pixels[:, :, :: 1 if seed % 2 else -1])


def chains() -> dict[str, list]:
    grown, shrunk = Resize((60, 80), (150, 190)), Resize((60, 80), (30, 50), "fast")
    return {
        "horizontal": [Flip((60, 80), "horizontal")],
        "vertical": [Flip((60, 80), "vertical")],
        "crop": [Crop((60, 80), 10, 20, (30, 40))],
        "padded": [Crop((60, 80), 30, -10, (50, 120), fill=7.9)],
        "beside": [Crop((60, 80), 60, 0, (20, 30))],
        "resize": [grown],
        "jitter": [ResizedCrop(grown, Crop((150, 190), 20, 60, (100, 100))), Flip((100, 100), "horizontal")],
        "small": [ResizedCrop(shrunk, Crop((30, 50), 0, 0, (90, 70))), Flip((90, 70), "vertical")],
        "two": [grown, Flip((150, 190), "horizontal"), Crop((150, 190), 40, 30, (110, 170))],
    }


def moved(image: LazyImage, chain: list) -> LazyImage:
    for transform in chain:
        image = MovedImage(image, transform)
    return image


@pytest.mark.parametrize("name", chains())
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_and_planes_are_those_of_the_whole(name: str, seed: int) -> None:
    chain, random = chains()[name], np.random.default_rng(seed)
    expected = image_of(seed).whole()
    for transform in chain:
        expected = transform.image(expected)
    image = moved(image_of(seed), chain)
    assert image.size == expected.shape[:2]
    for _ in range(20):
        top, left = (int(random.integers(side)) for side in image.size)
        rows, columns = slice(top, int(random.integers(top + 1, image.size[0] + 1))), slice(left, image.size[1])
        np.testing.assert_array_equal(image.part(rows, columns), expected[rows, columns])
    assert not image.made
    planes = np.full((3, *image.size), 99, np.uint8)
    image.planes(planes)
    np.testing.assert_array_equal(planes.transpose(1, 2, 0), expected)
    np.testing.assert_array_equal(image.whole(), expected)


def test_a_pasted_image_is_made_where_it_shows() -> None:
    below, other = image_of(0), image_of(1)
    cover = np.random.default_rng(2).random((20, 30)) < 0.5
    image = PastedImage(below, other, Pixels((slice(5, 25), slice(40, 70)), cover))
    expected = below.whole().copy()
    expected[5:25, 40:70][cover] = other.whole()[5:25, 40:70][cover]
    planes = np.zeros((3, 60, 80), np.uint8)
    image.planes(planes)
    np.testing.assert_array_equal(planes.transpose(1, 2, 0), expected)
    np.testing.assert_array_equal(image.whole(), expected)
    image.planes(planes[::-1])
    np.testing.assert_array_equal(planes[::-1].transpose(1, 2, 0), expected)


def test_a_sample_makes_its_image_once_and_when_it_is_asked_for() -> None:
    made = []
    image = LazyImage((40, 50), lambda: made.append(1) or np.zeros((40, 50, 3), np.uint8))
    sample = Sample(image=image, boxes=np.array([[1.0, 1, 9, 9]]), classes=np.array([0]))
    jittered = LargeScaleJitter(size=64)(sample, np.random.default_rng(0))
    assert sample.size == (40, 50) and jittered.size == (64, 64) and not made
    assert jittered.image.shape == (64, 64, 3) and jittered.image is jittered.image and made == [1]
    assert replace(sample, boxes=sample.boxes[:0]).image is sample.image
    pixels = np.ones((3, 4, 3), np.uint8)
    assert replace(sample, image=pixels).image is pixels


def test_images_are_freed_at_once() -> None:
    """Without a cycle that the garbage collector would have to find: each is of megabytes."""
    gc.disable()
    try:
        random = np.random.default_rng(0)
        result = CopyPaste(probability=1)(random_sample(random), random, [random_sample(random)])
        result = LargeScaleJitter(size=64)(result, random)
        alive = weakref.ref(result.lazy_image)
        assert result.image.shape == (64, 64, 3)
        del result
        assert alive() is None
    finally:
        gc.enable()


def test_a_partner_of_which_nothing_shows_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, read = small_set(tmp_path), []
    original = samples_module.read_image
    monkeypatch.setattr(samples_module, "read_image", lambda path, *more: read.append(path) or original(path, *more))
    own = dataset.image(0).path
    for share in (0, 1):
        augmentations = [RandomFlip(), CopyPaste(share=share, probability=1)]
        samples = TrainDataset([dataset], augmentations=augmentations, seed=0, format="BGR", masks=True)
        read.clear()
        for number in range(8):
            samples[(number, 0)]
        assert read.count(own) >= 8 and (set(read) == {own}) == (share == 0)
    bad = min(set(read) - {own})
    bad.write_bytes(b"no image")
    with pytest.raises(PartnerError, match=bad.name):
        for number in range(8):
            samples[(number, 0)]


def test_a_stored_image_is_the_array_itself() -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    assert stored(pixels).whole() is pixels and stored(pixels).size == (4, 5)
