"""Classes of pixels: reading them, and taking them through augmentations, samples and batches."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from augmentation_samples import random_sample
from PIL import Image

from se_det.config import get_cfg, merge_overrides
from se_det.data import train_loader
from se_det.data.augmentations import AUGMENTATIONS, build_augmentations
from se_det.data.augmentations.crop import Crop
from se_det.data.augmentations.flip import Flip
from se_det.data.augmentations.resize import Resize
from se_det.data.augmentations.rotation import Rotation
from se_det.data.label_folder import read_labelled_images
from se_det.data.pixel_labels import LabelFolder, panoptic_pixels, read_class_names, read_panoptic_png
from se_det.errors import ConfigError, DataError

INTENSITIES = ("RandomBrightness", "RandomContrast", "RandomSaturation")


def labels_of(sample):
    height, width = sample.size
    return (np.add.outer(np.arange(height) // 7, np.arange(width) // 11) % 4).astype(np.uint8)


@pytest.fixture
def sample():
    found = random_sample(np.random.default_rng(2), size=(90, 120))
    return replace(found, sem_seg=labels_of(found), ignore=255)


def test_labels_move_with_the_image_and_what_comes_from_outside_is_ignored(sample):
    labels = sample.sem_seg
    assert np.array_equal(sample.transformed(Flip((90, 120), "horizontal")).sem_seg, labels[:, ::-1])
    cropped = sample.transformed(Crop((90, 120), 60, 100, (50, 40))).sem_seg
    assert np.array_equal(cropped[:30, :20], labels[60:, 100:])
    assert (cropped[30:] == 255).all() and (cropped[:, 20:] == 255).all()
    resized = sample.transformed(Resize((90, 120), (45, 60))).sem_seg
    assert np.array_equal(resized, np.asarray(Image.fromarray(labels).resize((60, 45), Image.Resampling.NEAREST)))
    turned = sample.transformed(Rotation((90, 120), (90, 120), 30.0)).sem_seg
    assert set(np.unique(turned)) == {0, 1, 2, 3, 255} and turned[0, 0] == 255


@pytest.mark.parametrize("ignore", [255, 0, 7])
def test_any_label_can_be_the_ignored_one(sample, ignore):
    sample = replace(sample, ignore=ignore)
    cropped = sample.transformed(Crop((90, 120), 80, 0, (20, 120))).sem_seg
    assert np.array_equal(cropped[:10], sample.sem_seg[80:]) and (cropped[10:] == ignore).all()


@pytest.mark.parametrize("name", [name for name, _ in AUGMENTATIONS if name not in ("MixUp",)])
def test_every_augmentation_keeps_labels_as_large_as_the_image(sample, name):
    arguments = {
        "FixedSizeCrop": {"crop_size": (70, 140)}, "RandomLighting": {"scale": 0.1},
        "ResizeScale": {"min_scale": 0.5, "max_scale": 1.5, "target_height": 100, "target_width": 80},
        **{name: {"intensity_min": 0.8, "intensity_max": 1.2} for name in INTENSITIES},
        "LargeScaleJitter": {"size": 100}, "Mosaic": {"size": 100}, "RandomRotation": {"angle": 20},
        "RandomCrop": {"crop_type": "absolute", "crop_size": (40, 50)},
        "RandomCrop_CategoryAreaConstraint": {
            "crop_type": "absolute", "crop_size": (40, 50), "single_category_max_area": 0.75,
        },
    }.get(name, {})  # fmt: skip
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.AUGMENTATIONS", [{"name": name, **arguments}]])
    [augmentation] = build_augmentations(cfg)
    random = np.random.default_rng(5)
    for _ in range(8):
        result = augmentation(sample, random, [sample] * augmentation.partners)
        assert result.sem_seg.shape == result.size and result.sem_seg.dtype == np.uint8
        assert set(np.unique(result.sem_seg)) <= {0, 1, 2, 3, 255}


def test_a_mosaic_has_the_labels_of_its_parts_and_pasted_objects_bring_theirs(sample):
    kinds = [replace(sample, sem_seg=np.full((90, 120), value, np.uint8)) for value in range(4)]
    mosaic = AUGMENTATIONS.get("Mosaic")(size=100, scale=(2, 2), probability=1.0)
    found = mosaic(kinds[0], np.random.default_rng(1), kinds[1:])
    assert [found.sem_seg[y, x] for y, x in ((0, 0), (0, 99), (99, 0), (99, 99))] == [0, 1, 2, 3]
    paste = AUGMENTATIONS.get("CopyPaste")(share=1.0, probability=1.0)
    found = paste(kinds[0], np.random.default_rng(1), kinds[2:3])
    changed = (found.image != kinds[0].image).any(axis=2)
    assert set(np.unique(found.sem_seg)) == {0, 2} and (found.sem_seg[changed] == 2).all()


def test_the_constrained_crop_avoids_windows_of_one_class():
    sample = random_sample(np.random.default_rng(2), size=(100, 100))
    labels = np.ones((100, 100), np.uint8)
    labels[:, 60:] = 2
    sample = replace(sample, sem_seg=labels)
    kind = AUGMENTATIONS.get("RandomCrop_CategoryAreaConstraint")
    shares = {}
    for limit in (1.0, 0.7):
        crop = kind(crop_type="absolute", crop_size=(30, 40), single_category_max_area=limit)
        random = np.random.default_rng(0)
        found = [np.bincount(crop(sample, random).sem_seg.ravel()).max() / 1200 for _ in range(60)]
        shares[limit] = np.mean(np.array(found) >= 0.7)
    assert shares[0.7] < 0.15 < 0.5 < shares[1.0]
    with pytest.raises(ConfigError, match="SINGLE_CATEGORY_MAX_AREA"):
        crop(replace(sample, sem_seg=None), random)


def test_the_key_puts_the_constrained_crop_after_the_resizing():
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.CROP.ENABLED", True, "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.75])
    names = [type(augmentation).__name__ for augmentation in build_augmentations(cfg)]
    assert names == ["ResizeShortestEdge", "RandomCropCategoryAreaConstraint", "RandomFlip"]


def write_set(folder, *, size=(30, 40), values=(0, 1, 2, 255)):
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(3):
        pixels = random.integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(random.choice(np.array(values, np.uint8), size)).save(folder / "labels" / f"{number}.png")
    return LabelFolder(folder / "labels", ("a", "b", "c"))


def test_a_folder_of_labels_becomes_batches(tmp_path):
    labels = write_set(tmp_path)
    dataset = read_labelled_images(tmp_path / "images", labels)
    assert len(dataset) == 3 and dataset.image(1).id == "1" and dataset.drop_empty() is dataset
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.MIN_SIZE_TRAIN", (30,)])
    for workers in (0, 1):
        loader = train_loader([dataset], augmentations=build_augmentations(cfg), ims_per_batch=3, seed=1, ignore=9,
                              num_workers=workers)  # fmt: skip
        for sample in next(iter(loader)):
            truth = labels.read(f"{sample['image_id']}.png", 30, 40)
            truth[truth == 255] = 9
            found = sample["sem_seg"].numpy()
            assert found.dtype == np.uint8 and found.shape == sample["image"].shape[1:]
            assert np.array_equal(found, truth) or np.array_equal(found, truth[:, ::-1])


def test_mixing_images_and_data_without_labels_are_refused(tmp_path):
    labels = write_set(tmp_path)
    dataset = read_labelled_images(tmp_path / "images", labels)
    mixed = AUGMENTATIONS.get("MixUp")()
    with pytest.raises(ConfigError, match="MixUp, which the classes of pixels cannot go"):
        train_loader([dataset], augmentations=[mixed], ims_per_batch=1, seed=1, ignore=255)
    with pytest.raises(DataError, match="DATASETS.TRAIN_SEM_SEG"):
        train_loader([dataset.with_labels(None)], augmentations=[], ims_per_batch=1, seed=1, ignore=255)


def test_files_with_faults_are_named(tmp_path):
    labels = write_set(tmp_path)

    def read(name="0.png", size=(30, 40)):
        return labels.read(name, *size)

    with pytest.raises(DataError, match="30 px .* is 41 x 30"):
        read(size=(30, 41))
    with pytest.raises(DataError, match="are not there"):
        read("9.jpg")
    Image.fromarray(np.full((30, 40), 3, np.uint8)).save(tmp_path / "labels" / "0.png")
    with pytest.raises(DataError, match="value 3, and there are 3 classes"):
        read()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "labels" / "0.png")
    with pytest.raises(DataError, match="mode RGB"):
        read()
    (tmp_path / "labels" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        read()
    (tmp_path / "labels" / "0.png").unlink()
    with pytest.raises(DataError, match="1 of the 3 images have no labels"):
        read_labelled_images(tmp_path / "images", labels, file_names=["0.png", "1.png", "2.png"]).check_files_exist()
    assert len(read_labelled_images(tmp_path / "images", labels)) == 2
    with pytest.raises(DataError, match="None of the 3 images"):
        read_labelled_images(tmp_path / "images", LabelFolder(tmp_path / "images", ("a",), ending="_x.png"))


def test_a_palette_colours_labels_and_changes_none(tmp_path):
    labels = write_set(tmp_path)
    image = Image.open(tmp_path / "labels" / "1.png")
    before = np.array(image)
    image = image.convert("P")
    image.putdata(before.ravel().tolist())
    image.putpalette([value for n in range(256) for value in (n * 7 % 256, 255 - n, n * 3 % 256)])
    image.save(tmp_path / "labels" / "1.png")
    assert Image.open(tmp_path / "labels" / "1.png").mode == "P"
    assert np.array_equal(labels.read("1.png", 30, 40), before)


def test_names_of_classes(tmp_path):
    path = tmp_path / "names.json"
    for content in (["sky", "sea"], [{"name": "sky"}, {"name": "sea"}], {"1": "sea", "0": "sky"}):
        path.write_text(json.dumps(content))
        assert read_class_names([str(path)]) == ("sky", "sea")
    assert read_class_names(["sky", "sea"]) == ("sky", "sea") and read_class_names([]) == ()
    for content in ({"1": "sea", "2": "sky"}, [], [1], {"a": "b"}, "sky"):
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match="names of the classes in order"):
            read_class_names([str(path)])
    with pytest.raises(DataError, match="'sky' twice"):
        read_class_names(["sky", "sky"])


def test_panoptic_pngs_go_round(tmp_path):
    numbers = np.array([[0, 255, 256], [65535, 65536, 16777215]])
    Image.fromarray(panoptic_pixels(numbers)).save(tmp_path / "a.png")
    assert np.array_equal(read_panoptic_png(tmp_path / "a.png"), numbers)
