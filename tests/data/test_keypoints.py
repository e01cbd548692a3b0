"""Keypoints from the file to the sample: layout, mirror, half a pixel, what is left out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from se_det.data import read_coco
from se_det.data.augmentations import resize_and_flip
from se_det.data.catalog import DATASETS
from se_det.data.keypoints import mirror_names
from se_det.data.loader import train_loader
from se_det.data.samples import TrainDataset
from se_det.errors import DataError

SIDED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
PERSON = ["nose", *(f"{side}_{part}" for part in SIDED for side in ("left", "right"))]


def content(**category) -> dict:
    points = [10, 5, 2, 20, 5, 1, 0, 0, 0]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (1, 2, 3)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 2, 20, 20], "keypoints": points},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]},
            {"id": 3, "image_id": 2, "category_id": 1, "bbox": [4, 2, 20, 20], "keypoints": [0] * 9},
            {"id": 4, "image_id": 3, "category_id": 1, "bbox": [4, 2, 20, 20], "iscrowd": 1, "keypoints": points},
        ],
        "categories": [{"id": 1, "name": "owl", "keypoints": ["left wing", "right wing", "beak"],
                        "skeleton": [[1, 3], [2, 3]], **category}],
    }  # fmt: skip


def read(folder: Path, found: dict):
    path = folder / "owls.json"
    path.write_text(json.dumps(found))
    for image in found["images"]:
        cv2.imwrite(str(folder / image["file_name"]), np.zeros((30, 40, 3), np.uint8))
    return read_coco(path, folder)


def truth(dataset, flip: str) -> dict:
    augmentations = resize_and_flip(short_sides=(30,), max_size=99, flip=flip)
    augmentations[-1].probability = 1.0
    source = TrainDataset([dataset], augmentations=augmentations, seed=0, format="BGR", masks=False, keypoints=True)
    return source[0, 0]["instances"]


def test_keypoints_are_half_a_pixel_further_and_not_labelled_ones_are_zero(tmp_path):
    dataset = read(tmp_path, content())
    assert dataset.keypoints.names == ("left wing", "right wing", "beak")
    assert dataset.keypoints.flip == (1, 0, 2) and dataset.keypoints.skeleton == ((0, 2), (1, 2))
    found = truth(dataset, "none")["gt_keypoints"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[[10.5, 5.5, 2], [20.5, 5.5, 1], [0, 0, 0]], np.zeros((3, 3))])


def test_a_mirror_exchanges_left_and_right_and_a_vertical_one_does_not(tmp_path):
    dataset = read(tmp_path, content())
    found = truth(dataset, "horizontal")["gt_keypoints"]
    np.testing.assert_array_equal(found[0], [[40 - 20.5, 5.5, 1], [40 - 10.5, 5.5, 2], [0, 0, 0]])
    found = truth(dataset, "vertical")["gt_keypoints"]
    np.testing.assert_array_equal(found[0], [[10.5, 30 - 5.5, 2], [20.5, 30 - 5.5, 1], [0, 0, 0]])


def test_what_is_outside_of_the_image_is_not_labelled(tmp_path):
    found = content()
    found["annotations"][0]["keypoints"][:2] = [-3, 5]
    assert truth(read(tmp_path, found), "none")["gt_keypoints"][0, 0].tolist() == [0, 0, 0]


def test_images_with_few_labelled_keypoints_are_left_out(tmp_path, caplog):
    caplog.set_level("INFO")
    dataset = read(tmp_path, content())
    assert dataset.labelled_keypoints().tolist() == [2, 0, 2]  # crowds count, as in Detectron2
    assert [dataset.drop_few_keypoints(1).image(i).id for i in range(2)] == [1, 3]
    assert "1 of 3 images have fewer than 1 labelled keypoints" in caplog.text
    loader = train_loader([dataset], augmentations=[], ims_per_batch=1, seed=0, min_keypoints=1)
    assert loader.num_images == 1  # image 3 has a crowd alone
    batch = next(iter(loader))
    assert batch[0]["instances"]["gt_keypoints"].shape == (2, 3, 3)
    with pytest.raises(DataError, match="no image has 3 labelled keypoints .*MIN_KEYPOINTS_PER_IMAGE"):
        train_loader([dataset], augmentations=[], ims_per_batch=1, seed=0, min_keypoints=3)


@pytest.mark.parametrize(
    ("names", "pairs", "flip"),
    [
        (PERSON, (), [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]),  # Detectron2's for COCO
        (["L-eye", "R-eye", "tail"], (), [1, 0, 2]),
        (["EyeLeft", "EyeRight"], (), [1, 0]),
        (["left", "middle"], (), [0, 1]),
        (["ball", "collar"], (), [0, 1]),
        (["a", "b", "c"], [["a", "c"]], [2, 1, 0]),
    ],
)
def test_mirrors_by_name(names, pairs, flip):
    assert list(mirror_names(names, pairs)) == flip


def spoiled(change) -> dict:
    found = content()
    change(found)
    return found


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f["annotations"][0].update(keypoints=[1, 2]), "annotation 1 has the keypoints .* 3 times x, y, v"),
        (lambda f: f["annotations"][0].update(keypoints=[1, 2, 3] * 3), "annotation 1 .* v 0 .not labelled"),
        (lambda f: f["annotations"][0].update(keypoints="abc"), "annotation 1"),
        (lambda f: f["categories"][0].update(keypoints=["a", "a", "b"]), "names, each once"),
        (lambda f: f["categories"].append({"id": 2, "name": "x", "keypoints": ["z"]}), "have different"),
        (lambda f: f["categories"][0].update(flip=[["left wing", "tail"]]), "flip of category 1"),
        (lambda f: f["categories"][0].pop("keypoints"), "no category has keypoints"),
    ],
)  # fmt: skip
def test_faults_are_sentences_where_keypoints_are_asked_for_and_there_alone(tmp_path, change, match):
    dataset = read(tmp_path, spoiled(change))
    assert len(dataset.annotations(0).boxes) == 2
    with pytest.raises(DataError, match=match):
        dataset.check_keypoints()


def test_detectron2s_names_stand_for_the_files_of_people():
    for year, part, folder in ((2017, "train", "train"), (2017, "val", "val"), (2014, "minival", "val")):
        entry = DATASETS[f"keypoints_coco_{year}_{part}"]
        assert entry.json == f"coco/annotations/person_keypoints_{part}{year}.json"
        assert entry.images == f"coco/{folder}{year}"
