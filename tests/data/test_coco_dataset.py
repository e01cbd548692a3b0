"""A sound COCO file: what the data set says of it."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_files import CONTENT, HEIGHT, WIDTH, changed, rectangle, small_set, write_json
from pycocotools.coco import COCO

from se_det.data import compare_categories, open_dataset, read_coco
from se_det.data.rle import bitmap
from se_det.errors import DataError


def test_images_keep_the_files_order_and_ids(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    assert [dataset.image(i).id for i in range(len(dataset))] == [5, 1, 900000000000, 7]
    assert dataset.image(1).path == tmp_path / "images/sub/one.png"
    assert (dataset.image(1).height, dataset.image(1).width) == (WIDTH, HEIGHT)
    assert dataset.sizes.tolist() == [[40, 50], [50, 40], [40, 50], [40, 50]]


def test_classes_are_positions_among_ascending_category_ids(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    assert dataset.category_ids == (3, 17)
    assert dataset.category_names == ("cup", "owl")
    assert dataset.annotations(0).classes.tolist() == [0, 0, 1]


def test_annotations_are_found_by_image_with_masks_of_all_kinds(tmp_path: Path) -> None:
    found = small_set(tmp_path).annotations(0)
    assert found.boxes.tolist() == [[1.25, 2, 4.25, 6], [4, 3, 20, 9], [20, 10, 30, 30]]
    assert found.crowd.tolist() == [True, False, False]
    assert found.areas.tolist() == [12, 96, 100]  # of the first the file gives none: 3 x 4
    assert found.polygons.tolist() == [[20, 10], [30, 10], [30, 30]]
    assert found.polygon_owner.tolist() == [2]
    assert found.runs_owner.tolist() == [0, 1]
    np.testing.assert_array_equal(bitmap(found.runs[1], HEIGHT, WIDTH), rectangle())
    first = bitmap(found.runs[0], HEIGHT, WIDTH)  # 20 pixels from number 1000 on, down the columns
    assert first.sum() == 20 and first[:20, 25].all()


def test_polygons_of_an_instance_stay_together(tmp_path: Path) -> None:
    found = small_set(tmp_path).annotations(1)
    assert found.polygon_points.tolist() == [3, 4]
    assert found.polygon_owner.tolist() == [0, 0]
    assert found.polygons[2:4].tolist() == [[5, 36.5], [1.5, 2]]


def test_crowds_and_masks_can_be_left_out(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    found = dataset.annotations(0, crowds=False)
    assert found.boxes.tolist() == [[4, 3, 20, 9], [20, 10, 30, 30]]
    assert found.runs_owner.tolist() == [0] and found.polygon_owner.tolist() == [1]
    without = dataset.annotations(0, masks=False)
    assert len(without.boxes) == 3 and not without.runs and len(without.polygons) == 0
    assert dataset.annotations(2).boxes.shape == (0, 4)


def test_images_without_annotations_or_with_crowds_only_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = small_set(tmp_path)
    with caplog.at_level(logging.INFO):
        kept = dataset.drop_empty()
    assert [kept.image(i).id for i in range(len(kept))] == [5, 1]
    assert kept.annotations(1).boxes.tolist() == [[1, 2, 31, 42]]
    assert "2 of 4 images" in caplog.text
    assert len(dataset) == 4
    assert len(kept.drop_empty()) == 2


def test_masks_that_lack_are_counted_but_for_crowds(tmp_path: Path) -> None:
    assert small_set(tmp_path).num_annotations_without_mask() == 0
    content = changed("annotations", 0, "segmentation", to=[])
    content["annotations"][1]["segmentation"] = None  # a crowd
    del content["annotations"][4]["segmentation"]
    dataset = small_set(tmp_path, content)
    assert dataset.num_annotations_without_mask() == 2
    assert dataset.subset([0]).num_annotations_without_mask() == 1


def test_ids_may_be_texts(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    for entry, key in [(i, "id") for i in content["images"]] + [(a, "image_id") for a in content["annotations"]]:
        entry[key] = f"päth/{entry[key]}"
    dataset = small_set(tmp_path, content)
    assert dataset.image(1).id == "päth/1"
    assert dataset.annotations(1).classes.tolist() == [1]


def test_pickled_it_is_the_same_set(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    copied = pickle.loads(pickle.dumps(dataset))
    assert copied.image(1) == dataset.image(1)
    assert copied.annotations(1).polygons.tolist() == dataset.annotations(1).polygons.tolist()


def test_what_grows_with_the_file_is_in_tensors_alone(tmp_path: Path) -> None:
    """Python objects are copied into each worker, page by page, as their reference counts are written."""
    held = dict(vars(small_set(tmp_path)))
    for key in (
        "json_path",
        "images_folder",
        "category_ids",
        "category_names",
        "keypoints",
        "keypoint_fault",
        "pixel_labels",
        "panoptic",
        "evaluators",
        "declared_counts",
    ):
        del held[key]
    names = vars(held.pop("_file_names"))
    parts = [held.pop("_image_ids"), *held.pop("_columns").values(), *names.values()]
    assert not held and all(isinstance(part, torch.Tensor) for part in parts)


def test_boxes_without_area_are_left_out_where_the_file_is_known_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = changed("annotations", 0, "bbox", to=[1, 2, 0, 4])
    content["annotations"][4]["segmentation"].append([1, 2, 3, 4])
    path = write_json(tmp_path, content)
    with caplog.at_level(logging.INFO):
        dataset = read_coco(path, tmp_path, drop_empty_boxes=True)
    assert "1 annotations without area are left out" in caplog.text
    assert len(dataset.annotations(1).boxes) == 0
    assert dataset.annotations(0).polygon_points.tolist() == [3]
    assert dataset.annotations(0).polygons.tolist() == [[20, 10], [30, 10], [30, 30]]


def test_a_file_may_have_no_annotations(tmp_path: Path) -> None:
    dataset = read_coco(write_json(tmp_path, changed("annotations", to=[])), tmp_path)
    assert len(dataset) == 4 and len(dataset.annotations(0).boxes) == 0
    assert len(dataset.drop_empty()) == 0


def test_files_that_are_missing_are_counted_and_named(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    dataset.check_files_exist()
    (tmp_path / "images/sub/one.png").unlink()
    (tmp_path / "images/five.png").unlink()
    with pytest.raises(DataError, match=r"2 of the 4 image files that .*instances.json names.*five.png, sub/one.png"):
        dataset.check_files_exist()
    dataset.subset([2, 3]).check_files_exist()


def test_categories_that_differ_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = read_coco(write_json(tmp_path / "a", CONTENT), tmp_path)
    compare_categories(one, one)
    content = changed("categories", to=[{"id": 3, "name": "mug"}, {"id": 17, "name": "owl"}, {"id": 4, "name": "hat"}])
    other = read_coco(write_json(tmp_path / "b", content), tmp_path)
    with pytest.raises(DataError) as error:
        compare_categories(one, other)
    assert "b/instances.json alone has 4 ('hat')" in str(error.value)
    assert "3 ('cup' and 'mug')" in str(error.value)


@pytest.mark.shared_data
@pytest.mark.parametrize("part", ["train", "val"])
def test_real_coco_reads_as_pycocotools_reads_it(shared_data: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_data))
    dataset = open_dataset(f"coco_2017_{part}")
    dataset.check_files_exist()
    oracle = COCO(str(dataset.json_path))
    assert dataset.category_ids == tuple(sorted(oracle.cats))
    assert dataset.category_names == tuple(oracle.cats[i]["name"] for i in sorted(oracle.cats))
    masks = 0
    for i in range(len(dataset)):
        info, found = dataset.image(i), dataset.annotations(i)
        expected = oracle.imgToAnns[info.id]
        assert [dataset.category_ids[c] for c in found.classes] == [a["category_id"] for a in expected]
        assert found.areas.tolist() == [a["area"] for a in expected]
        xywh = np.array([a["bbox"] for a in expected]).reshape(-1, 4)
        np.testing.assert_allclose(found.boxes[:, :2], xywh[:, :2], rtol=1e-6)
        np.testing.assert_allclose(found.boxes[:, 2:], xywh[:, :2] + xywh[:, 2:], rtol=1e-6)
        for owner, runs in zip(found.runs_owner, found.runs):
            np.testing.assert_array_equal(bitmap(runs, info.height, info.width), oracle.annToMask(expected[owner]))
            masks += 1
        flat = [
            value for a in expected if isinstance(a["segmentation"], list) for p in a["segmentation"] for value in p
        ]
        assert found.polygons.ravel().tolist() == flat
    assert masks == 5  # the crowds that the folder's README counts


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["cocoapi", "raccoon"])
def test_the_other_samples_are_sound(shared_data: Path, name: str, tmp_path: Path) -> None:
    files = sorted(p for p in (shared_data / name).rglob("*.json") if '"categories"' in p.read_text())
    assert files
    for path in files:
        dataset = read_coco(path, tmp_path)
        content = json.loads(path.read_text())
        assert len(dataset) == len(content["images"])
        assert sum(len(dataset.annotations(i).boxes) for i in range(len(dataset))) == len(content["annotations"])
