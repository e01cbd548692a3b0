"""Each augmentation of the list: what all of them must keep, and what each one does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import astuple, fields, replace
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from augmentation_samples import random_sample
from coco_files import small_set

from se_det.config import get_cfg, merge_overrides
from se_det.data import build_train_loader
from se_det.data.augmentations import AUGMENTATIONS, Masks, Sample, build_augmentations
from se_det.data.augmentations.combining import pixels_of
from se_det.data.samples import _instances
from se_det.errors import ConfigError
from tests.training.small_detector import EVERY_AUGMENTATION

DRAWS = 500
ARGUMENTS = {
    "ResizeShortestEdge": {"short_sides": (60, 90), "max_size": 300},
    "RandomFlip": {},
    "ResizeScale": {"min_scale": 0.5, "max_scale": 2.0, "target_height": 120, "target_width": 130},
    "FixedSizeCrop": {"crop_size": (90, 100)},
    "LargeScaleJitter": {"size": (120, 110), "min_scale": 0.2},
    "RandomCrop": {"crop_type": "relative_range", "crop_size": (0.3, 0.3)},
    "RandomCrop_CategoryAreaConstraint": {
        "crop_type": "relative_range", "crop_size": (0.3, 0.3), "single_category_max_area": 1.0,
    },
    "MinIoURandomCrop": {},
    "RandomRotation": {"angle": (-30, 30)},
    "RandomQuarterTurn": {},
    "PhotometricDistort": {},
    "RandomBrightness": {"intensity_min": 0.5, "intensity_max": 1.5},
    "RandomContrast": {"intensity_min": 0.5, "intensity_max": 1.5},
    "RandomSaturation": {"intensity_min": 0.5, "intensity_max": 1.5},
    "RandomLighting": {"scale": 30.0},
    "RandomGrayscale": {},
    "GaussianBlur": {},
    "GaussianNoise": {},
    "JPEG": {},
    "RandomErasing": {},
    "CopyPaste": {},
    "Mosaic": {"size": (130, 140)},
    "MixUp": {},
}  # fmt: skip
GEOMETRIC = (
    "RandomFlip", "FixedSizeCrop", "LargeScaleJitter", "RandomCrop", "MinIoURandomCrop", "RandomRotation",
    "RandomQuarterTurn", "ResizeShortestEdge", "ResizeScale",
)  # fmt: skip


def made(name: str, **more):
    more = {} if name == "ResizeShortestEdge" else {"probability": 1, **more}
    return AUGMENTATIONS.get(name)(**ARGUMENTS[name], **more)


@cache
def samples_of(kinds: str) -> list[Sample]:
    return [random_sample(np.random.default_rng((n, 1)), kinds=kinds, keypoints=True) for n in range(DRAWS)]


def assert_same(one: Sample, other: Sample) -> None:
    for name in ("image", "boxes", "classes", "keypoints"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for field in fields(Masks):
        mine, theirs = (getattr(sample.masks, field.name) for sample in (one, other))
        assert len(mine) == len(theirs)
        for pair in zip(mine, theirs):
            np.testing.assert_array_equal(*pair)


def test_every_augmentation_is_tested_here() -> None:
    ours = [name for name in AUGMENTATIONS.names() if AUGMENTATIONS.get(name).__module__.startswith("se_det.data.")]
    assert sorted(ours) == sorted(ARGUMENTS)
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    assert [name for name in ours if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name != "ResizeShortestEdge"])
def test_at_probability_0_nothing_changes(name: str) -> None:
    augmentation = made(name, probability=0)
    for number in range(20):
        random = np.random.default_rng((number, 1))
        sample = random_sample(random, keypoints=True)
        assert_same(augmentation(sample, random, ["no partner is looked at"] * augmentation.partners), sample)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_boxes_are_the_extents_of_masks_to_a_pixel(name: str) -> None:
    # Resizing leaves a box that is the file's as Detectron2 does: of bitmaps with points of a pixel, those vanish.
    resizes = name in ("ResizeShortestEdge", "ResizeScale")
    kinds, instances = "polygons" if resizes else "polygons bitmaps crowds", 0
    augmentation, samples = made(name), samples_of(kinds)
    for number, sample in enumerate(samples):
        partners = [samples[number - 1 - at] for at in range(augmentation.partners)]
        result = augmentation(sample, np.random.default_rng(number), partners)
        found = _instances(result)
        extents = Masks(**found["gt_masks"]).extents(len(found["gt_boxes"]))
        np.testing.assert_allclose(found["gt_boxes"], extents, atol=1, err_msg=f"{name} {number}")
        assert (found["gt_boxes"] >= 0).all() and (found["gt_boxes"] <= [*result.size[::-1]] * 2).all()
        assert len(found["gt_classes"]) == len(found["gt_boxes"])
        instances += len(found["gt_boxes"])
    assert instances > DRAWS


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("kind", ["polygons", "bitmaps"])
def test_masks_stay_on_what_they_show(name: str, kind: str) -> None:
    """An image that is white where its one mask is, and black elsewhere, is so afterwards."""
    compared = 0
    for number in range(60):
        random = np.random.default_rng((number, 5))
        sample = random_sample(random, kinds=kind)
        sample = sample.select(np.arange(len(sample.boxes)) == 0)
        (rows, columns), pixels = astuple(pixels_of(sample, 0))
        image = np.zeros((*sample.size, 3), np.uint8)
        image[rows, columns][pixels] = 255
        result = made(name)(replace(sample, image=image), random)
        if not len(result.boxes):
            continue
        (rows, columns), pixels = astuple(pixels_of(result, 0))
        white = result.image[:, :, 0] >= 250
        black = (result.image[:, :, 0] <= 5) | (result.image[:, :, 0] == 128)
        mask = np.zeros(result.size, bool)
        mask[rows, columns] = pixels
        outline = 4 * (result.size[0] + result.size[1])
        assert (white & ~mask).sum() + (black & mask).sum() <= 0.02 * outline + 0.01 * mask.sum(), (number, name)
        compared += mask.sum() > 50
    assert compared > 30


@pytest.mark.parametrize("name", ARGUMENTS)
def test_neither_sample_nor_partners_are_written_to(name: str) -> None:
    augmentation = made(name)
    for number in range(10):
        random = np.random.default_rng((number, 1))
        samples = [random_sample(random, keypoints=True) for _ in range(1 + augmentation.partners)]
        before = copy.deepcopy(samples)
        augmentation(samples[0], random, samples[1:])
        for one, other in zip(samples, before):
            assert_same(one, other)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_images_without_instances_masks_or_keypoints_are_taken(name: str) -> None:
    augmentation = made(name)
    for number in range(20):
        random = np.random.default_rng((number, 1))
        samples = [random_sample(random, masks=False) for _ in range(1 + augmentation.partners)]
        empty = [sample.select(np.zeros(len(sample.boxes), bool)) for sample in samples]
        for first, *partners in (samples, empty, [empty[0], *samples[1:]], [samples[0], *empty[1:]]):
            result = _instances(augmentation(first, random, partners))
            assert "gt_masks" not in result and result["gt_boxes"].shape[1] == 4


@pytest.mark.parametrize("name", ARGUMENTS)
def test_tiny_images_are_taken(name: str) -> None:
    augmentation = made(name)
    for number, size in enumerate([(1, 1), (1, 9), (9, 1), (2, 3)] * 5):
        random = np.random.default_rng((number, 1))
        sample = Sample(
            image=random.integers(0, 256, (*size, 3), np.uint8), boxes=np.array([[0.0, 0, size[1], size[0]]]),
            classes=np.array([0]), masks=Masks(bitmaps=[np.ones(size, np.uint8)], bitmap_owner=np.array([0])),
        )  # fmt: skip
        result = augmentation(sample, random, [sample] * augmentation.partners)
        assert result.image.dtype == np.uint8 and result.image.ndim == 3


def all_of_them(dataset, count: int, *, workers: int = 0, start: int = 0) -> Iterator[list[dict]]:
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.AUGMENTATIONS", EVERY_AUGMENTATION, "MODEL.MASK_ON", True, "SOLVER.IMS_PER_BATCH", 2])
    merge_overrides(cfg, ["DATALOADER.NUM_WORKERS", workers])
    return list(islice(build_train_loader(cfg, [dataset], seed=3, start=start), count))


def test_with_all_of_them_a_sample_is_the_same_whoever_loads_it_and_wherever_the_run_began(tmp_path: Path) -> None:
    assert {entry["name"] for entry in EVERY_AUGMENTATION} == set(ARGUMENTS)
    dataset = small_set(tmp_path)
    expected = all_of_them(dataset, 24)
    for others, place in ((all_of_them(dataset, 24, workers=2), 0), (all_of_them(dataset, 14, start=10), 10)):
        for batch, other in zip(expected[place:], others, strict=True):
            for one, two in zip(batch, other, strict=True):
                _assert_equal(one, two)
    assert len({sample["image"].shape for batch in expected for sample in batch}) > 5


def _assert_equal(one, other) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_equal(one[key], other[key])
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_threads_change_no_pixel() -> None:
    sample, before = random_sample(np.random.default_rng(0), size=(400, 500)), torch.get_num_threads()
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append([made(name)(sample, np.random.default_rng(1), [sample] * 3).image for name in ARGUMENTS])
    torch.set_num_threads(before)
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"name": "LargeScaleJitter", "sizes": 3}, r"\[0\] \(LargeScaleJitter\) has no argument 'sizes'.*mean 'size'"),
        ({"name": "LargeScaleJitter", "size": 0}, r"\[0\]: LargeScaleJitter's size is 0; it must be a whole number"),
        ({"name": "LargeScaleJitter", "min_scale": 3}, r"min_scale, max_scale is \(3, 2.0\); .* the lower first"),
        ({"name": "FixedSizeCrop"}, r"\(FixedSizeCrop\) needs the argument crop_size"),
        ({"name": "FixedSizeCrop", "crop_size": "big"}, "FixedSizeCrop's crop_size is 'big'"),
        ({"name": "FixedSizeCrop", "crop_size": 9, "pad": "no"}, "pad is 'no'; it must be true or false"),
        ({"name": "FixedSizeCrop", "crop_size": 9, "pad_value": 256}, "pad_value is 256; .* between 0 and 255"),
        ({"name": "RandomCrop", "crop_type": "half"}, "'half'; it must be one of relative_range, relative, absolute,"),
        ({"name": "RandomCrop", "crop_size": [0.5, 1.5]}, r"INPUT.CROP.SIZE\) is \[0.5, 1.5\]; .* up to 1"),
        ({"name": "RandomCrop", "crop_type": "absolute", "crop_size": [0.5, 9]}, "whole numbers of px"),
        ({"name": "RandomCrop", "crop_type": "absolute_range", "crop_size": [9, 5]}, "the lower first"),
        ({"name": "RandomRotation", "angle": [10, -10]}, "angle is .10, -10.; .*lower first"),
        ({"name": "RandomRotation", "angle": float("nan")}, "angle is"),
        ({"name": "MinIoURandomCrop", "min_ious": [0.5, 2]}, "min_ious is 2; .* between 0 and 1"),
        ({"name": "MinIoURandomCrop", "min_ious": "all"}, "must be a list of numbers"),
        ({"name": "MinIoURandomCrop", "crop_trials": 0.5}, "crop_trials is 0.5; it must be a whole number"),
        ({"name": "PhotometricDistort", "hue": [-1, 1]}, "hue is .* between -0.5 and 0.5"),
        ({"name": "PhotometricDistort", "format": "HSV"}, "format is 'HSV'; it must be one of BGR, RGB"),
        ({"name": "JPEG", "quality": [0, 101]}, "quality is .* between 1 and 100"),
        ({"name": "RandomErasing", "value": "black"}, "value is 'black'; it must be a grey level"),
        ({"name": "CopyPaste", "probability": 1.5}, "CopyPaste's probability is 1.5; .* between 0 and 1"),
        ({"name": "Mosaic", "method": "cv2"}, r"method \(INPUT.RESIZE\) is 'cv2'"),
        ({"name": "MixUp", "alpha": -1}, "alpha is -1; it must be a number of at least 0.01"),
        ({"name": "GaussianBlur", "sigma": True}, "sigma is True"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_work_are_named_with_their_place(entry: dict, sentence: str) -> None:
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.AUGMENTATIONS", [entry]])
    with pytest.raises(
        ConfigError, match=rf"INPUT.AUGMENTATIONS\[0\].*{sentence}" if "[0" not in sentence else sentence
    ):
        build_augmentations(cfg)


def test_detectron2s_crop_node_is_a_crop_before_the_default_list(caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [384, 600]])
    crop, *others = build_augmentations(cfg)
    assert (crop.crop_type, crop.crop_size, crop.probability) == ("absolute", (384, 600), 1)
    assert [type(other).__name__ for other in others] == ["ResizeShortestEdge", "RandomFlip"]
    merge_overrides(cfg, ["INPUT.AUGMENTATIONS", [{"name": "RandomFlip"}]])
    build_augmentations(cfg)
    assert "INPUT.CROP.ENABLED is set, and INPUT.AUGMENTATIONS has no RandomCrop" in caplog.text
    merge_overrides(cfg, ["INPUT.AUGMENTATIONS", [{"name": "RandomFlip"}, {"name": "RandomCrop"}]])
    assert build_augmentations(cfg)[1].crop_size == (384, 600)
