"""What each augmentation does, one by one."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from augmentation_samples import random_sample
from coco_files import small_set
from torchvision.transforms.v2 import functional as F

from se_det.data.augmentations import AUGMENTATIONS, Masks, Sample
from se_det.data.augmentations.colour import grey, hue_shifted, saturated, scaled
from se_det.data.augmentations.combining import pixels_of
from se_det.data.augmentations.copy_paste import CopyPaste
from se_det.data.augmentations.crop import Crop
from se_det.data.augmentations.gaussian_blur import GaussianBlur
from se_det.data.augmentations.gaussian_noise import GaussianNoise
from se_det.data.augmentations.jpeg import JPEG
from se_det.data.augmentations.large_scale_jitter import LargeScaleJitter, nearest_pixels
from se_det.data.augmentations.min_iou_random_crop import MinIoURandomCrop
from se_det.data.augmentations.mixup import MixUp
from se_det.data.augmentations.mosaic import Mosaic
from se_det.data.augmentations.photometric_distort import contrasted
from se_det.data.augmentations.quarter_turn import RandomQuarterTurn
from se_det.data.augmentations.random_erasing import RandomErasing
from se_det.data.augmentations.rotation import RandomRotation
from se_det.data.samples import TrainDataset, _instances


def test_a_crop_drops_what_it_leaves_outside_and_hides_its_keypoints() -> None:
    sample = Sample(
        image=np.zeros((20, 30, 3), np.uint8), boxes=np.array([[1.0, 1, 9, 9], [20, 5, 30, 15]]),
        classes=np.array([4, 7]), keypoints=np.array([[[2.0, 2, 2]], [[29, 6, 2]]]),
    )  # fmt: skip
    result = sample.transformed(Crop((20, 30), 5, 15, (10, 10)))
    assert result.boxes.tolist() == [[5, 0, 10, 10]] and result.classes.tolist() == [7]
    assert result.keypoints.tolist() == [[[14, 1, 0]]]
    padded = sample.transformed(Crop((20, 30), -2, -3, (24, 40), fill=7)).image
    assert padded.shape == (24, 40, 3)
    assert (padded[2:22, 3:33] == 0).all() and padded.sum() == 7 * 3 * (24 * 40 - 600)


def test_bitmaps_of_large_scale_jitter_are_those_of_its_two_parts() -> None:
    together = LargeScaleJitter(size=(120, 90), min_scale=0.3, max_scale=2.5)
    for number in range(60):
        sample = random_sample(np.random.default_rng(number), kinds="bitmaps")
        chain = [
            AUGMENTATIONS.get("ResizeScale")(min_scale=0.3, max_scale=2.5, target_height=120, target_width=90),
            AUGMENTATIONS.get("FixedSizeCrop")(crop_size=(120, 90)),
        ]
        random, result = np.random.default_rng(number), sample
        for augmentation in chain:
            result = augmentation(result, random)
        ours = together(sample, np.random.default_rng(number))
        np.testing.assert_array_equal(ours.image, result.image)
        np.testing.assert_array_equal(ours.masks.bitmaps, result.masks.bitmaps)
    assert nearest_pixels(4, 2).tolist() == [1, 3]


def test_every_window_of_min_iou_random_crop_has_a_centre_and_its_overlap() -> None:
    crop, cropped = MinIoURandomCrop(min_ious=(0.5,)), 0
    for number in range(200):
        sample = random_sample(np.random.default_rng(number), masks=False)
        result = crop(sample, np.random.default_rng(number))
        assert len(result.boxes) >= 1
        assert 0.5 <= result.size[0] / result.size[1] <= 2 or result.image is sample.image
        cropped += result.image is not sample.image
    assert 60 < cropped < 190


def test_a_turn_by_90_degrees_is_a_quarter_turn() -> None:
    for number in range(30):
        sample = random_sample(np.random.default_rng(number))
        turned = RandomQuarterTurn(probability=1)(sample, np.random.default_rng(number))
        quarters = int(np.random.default_rng(number).integers(1, 4))
        rotated = RandomRotation(angle=90 * quarters, expand=True)(sample, np.random.default_rng(number))
        np.testing.assert_array_equal(turned.image, rotated.image)
        np.testing.assert_allclose(turned.boxes, rotated.boxes, atol=1e-9)
        np.testing.assert_allclose(turned.masks.polygons, rotated.masks.polygons, atol=1e-9)
        np.testing.assert_array_equal(turned.masks.bitmaps, rotated.masks.bitmaps)


@pytest.mark.parametrize("format", ["RGB", "BGR"])
def test_colours_are_torchvisions(format: str) -> None:
    order = 1 if format == "RGB" else -1
    for number in range(20):
        random = np.random.default_rng(number)
        image = random_sample(random).image
        rgb = torch.from_numpy(image[:, :, ::order].transpose(2, 0, 1).copy())
        factor, turns = float(random.uniform(0.3, 1.7)), float(random.uniform(-0.5, 0.5))
        for ours, theirs, most in (
            (scaled(image, factor), F.adjust_brightness(rgb, factor), 0),
            (contrasted(image, factor, format), F.adjust_contrast(rgb, factor), 1),
            (saturated(image, factor, format), F.adjust_saturation(rgb, factor), 2),
            (hue_shifted(image, turns, format), F.adjust_hue(rgb, turns), 2),
            (np.repeat(grey(image, format)[:, :, None], 3, 2), F.rgb_to_grayscale(rgb, 3), 1),
        ):
            apart = np.abs(ours[:, :, ::order].astype(int) - theirs.permute(1, 2, 0).numpy())
            assert apart.max() <= most, (format, number)


def test_blur_is_torchvisions_and_noise_has_its_deviation() -> None:
    sample = random_sample(np.random.default_rng(0), size=(120, 150))
    blurred = GaussianBlur(sigma=(1.5, 1.5), probability=1)(sample, np.random.default_rng(0)).image
    theirs = F.gaussian_blur(torch.from_numpy(sample.image.transpose(2, 0, 1).copy()), [11, 11], [1.5, 1.5])
    apart = np.abs(blurred.astype(int) - theirs.permute(1, 2, 0).numpy())
    assert apart.max() <= 2 and (apart > 1).mean() < 1e-3  # OpenCV's weights are whole numbers
    flat = replace(sample, image=np.full((200, 200, 3), 120, np.uint8))
    noise = GaussianNoise(sigma=(9, 9), probability=1)(flat, np.random.default_rng(0)).image.astype(float) - 120
    assert abs(noise.std() - 9) < 0.1 and abs(noise.mean()) < 0.1


def test_compression_is_of_the_channels_that_the_format_says() -> None:
    sample = random_sample(np.random.default_rng(0), size=(64, 80))
    as_rgb, as_bgr = (
        JPEG(quality=(40, 40), probability=1, format=format)(
            replace(sample, image=sample.image[:, :, ::order]), np.random.default_rng(0)
        ).image[:, :, ::order]
        for format, order in (("RGB", 1), ("BGR", -1))
    )
    np.testing.assert_array_equal(as_rgb, as_bgr)
    assert 1 < np.abs(as_rgb.astype(int) - sample.image).mean() < 40


def test_an_object_all_behind_what_is_erased_is_left_out() -> None:
    sample = Sample(
        image=np.zeros((100, 100, 3), np.uint8), boxes=np.array([[48.0, 48, 52, 52], [0, 0, 100, 100]]),
        classes=np.array([0, 1]),
    )  # fmt: skip
    erasing, dropped = RandomErasing(scale=(0.1, 0.3), value=200, probability=1), 0
    for number in range(100):
        result = erasing(sample, np.random.default_rng(number))
        erased = result.image[:, :, 0] == 200
        assert 0.08 < erased.mean() < 0.32
        assert (len(result.boxes) == 1) == bool(erased[48:52, 48:52].all())
        dropped += len(result.boxes) == 1
    assert 5 < dropped < 60


def _pair(masks: bool) -> tuple[Sample, Sample]:
    """A black image with a square object, and a white one with a smaller square over its right half."""
    below, above = np.array([[10.0, 10, 30, 30]]), np.array([[20.0, 5, 40, 35]])
    samples = []
    for box, level in ((below, 0), (above, 255)):
        x0, y0, x1, y1 = box[0]
        polygon = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        square = Masks(polygons=polygon, polygon_points=np.array([4]), polygon_owner=np.array([0]))
        samples.append(
            Sample(
                image=np.full((50, 60, 3), level, np.uint8), boxes=box, classes=np.array([level]),
                masks=square if masks else None,
            )
        )  # fmt: skip
    return samples[0], samples[1]


@pytest.mark.parametrize("masks", [True, False])
def test_what_is_pasted_covers_what_is_below(masks: bool) -> None:
    sample, other = _pair(masks)
    result = CopyPaste(share=1, probability=1)(sample, np.random.default_rng(0), [other])
    white = np.zeros((50, 60), bool)
    white[5:35, 20:40] = True
    np.testing.assert_array_equal(result.image[:, :, 0] == 255, white)
    instances = _instances(result)
    assert instances["gt_boxes"].tolist() == [[10, 10, 20, 30], [20, 5, 40, 35]]
    assert instances["gt_classes"].tolist() == [0, 255]
    if masks:
        assert instances["gt_masks"]["polygon_owner"].tolist() == [1]  # the pasted one stays a polygon
        assert instances["gt_masks"]["bitmap_owner"].tolist() == [0]
        expected = np.zeros((50, 60), np.uint8)
        expected[10:30, 10:20] = 1
        np.testing.assert_array_equal(instances["gt_masks"]["bitmaps"][0], expected)
    hidden = CopyPaste(share=1, probability=1, min_visible=0.6)(sample, np.random.default_rng(0), [other])
    assert _instances(hidden)["gt_classes"].tolist() == [255]


def test_pasted_masks_and_the_image_agree() -> None:
    """Each object's pixels, in images of one colour per sample, are its sample's."""
    for number in range(100):
        random = np.random.default_rng(number)
        sample, other = random_sample(random), random_sample(random)
        sample = replace(sample, image=np.full_like(sample.image, 10), classes=np.full_like(sample.classes, 10))
        other = replace(other, image=np.full_like(other.image, 200), classes=np.full_like(other.classes, 200))
        result = CopyPaste(probability=1, min_visible=0)(sample, random, [other])
        for at, colour in enumerate(result.classes):
            (rows, columns), pixels = astuple(pixels_of(result, at))
            assert (result.image[rows, columns, 0][pixels] == colour).all()


def test_a_mosaic_has_four_images_that_meet_in_a_point() -> None:
    for number in range(40):
        random = np.random.default_rng(number)
        whole = np.array([[0.0, 0, 90, 80]])
        samples = [
            Sample(image=np.full((80, 90, 3), 40 + 50 * at, np.uint8), boxes=whole, classes=np.array([at]))
            for at in range(4)
        ]
        result = Mosaic(size=(100, 120), scale=(0.9, 1.0), probability=1)(samples[0], random, samples[1:])
        assert result.size == (100, 120) and result.classes.tolist() == [0, 1, 2, 3]
        levels = result.image[:, :, 0]
        for at, (x0, y0, x1, y1) in enumerate(np.rint(result.boxes).astype(int)):
            assert (levels[y0:y1, x0:x1] == 40 + 50 * at).all()
            assert (levels == 40 + 50 * at).sum() == (x1 - x0) * (y1 - y0)
        first, last = result.boxes[0], result.boxes[3]
        np.testing.assert_allclose(first[2:], last[:2], atol=1e-9)


def test_mixup_is_the_weighted_mean_with_the_objects_of_both() -> None:
    random = np.random.default_rng(0)
    sample, other = random_sample(random, size=(60, 90)), random_sample(random, size=(80, 70))
    result = MixUp(alpha=1.5, probability=1)(sample, np.random.default_rng(4), [other])
    weight = np.random.default_rng(4).beta(1.5, 1.5)
    assert result.size == (80, 90)
    expected = weight * sample.image[:60, :70] + (1 - weight) * other.image[:60, :70].astype(float)
    assert np.abs(result.image[:60, :70] - expected).max() <= 0.51
    np.testing.assert_array_equal(result.boxes, np.concatenate([sample.boxes, other.boxes]))


def test_partners_are_read_only_when_an_augmentation_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, read = small_set(tmp_path), []
    original = TrainDataset._read
    monkeypatch.setattr(
        TrainDataset, "_read", lambda self, index, **later: read.append(index) or original(self, index, **later)
    )
    for probability, count in ((0, 1), (1, 4)):
        samples = TrainDataset(
            [dataset], augmentations=[Mosaic(size=40, probability=probability)], seed=0, format="BGR", masks=True
        )
        read.clear()
        samples[(0, 0)]
        assert len(read) == count
