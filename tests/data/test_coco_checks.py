"""Broken COCO files: each is refused in a sentence with the file, the id, the value and what to do."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from coco_files import CONTENT, changed, small_set, write_json

from se_det.data import read_coco
from se_det.data.check import check_dataset
from se_det.data.image_paths import NearMisses
from se_det.errors import DataError

A = "annotations"
RLE = {"size": [40, 50], "counts": [2000]}

BROKEN: dict[str, tuple[Any, str]] = {
    # the file as a whole
    "empty file": ("", "is empty"),
    "torn": (json.dumps(CONTENT)[:300], "is not a whole JSON file: .*line 1 column"),
    "deeply nested": ("[" * 100_000, "cannot be read as JSON"),
    "results": ([{"image_id": 1}], "holds a JSON list, not an object.*ground truth"),
    "number": ("3", "holds a JSON number"),
    "no images": (changed("images", remove=True), "has no 'images'"),
    "nothing": ({}, "no 'images' and no 'annotations' and no 'categories'"),
    "images an object": (changed("images", to={}), "'images' is a JSON object; it must be a list"),
    "no image": (changed("images", to=[]), "'images' is empty"),
    "an annotation a number": (changed(A, 1, to=7), "entry 1 of 'annotations' is 7"),
    "no categories": (changed("categories", to=[]), "'categories' is empty"),
    # categories
    "category twice": (changed("categories", 1, "id", to=17), "category id 17 is there twice"),
    "category id a text": (changed("categories", 1, "id", to="3"), "category number 1 .* has the id '3'"),
    "category without name": (changed("categories", 1, "name", remove=True), "category 3 has the name None"),
    "category half a character": (changed("categories", 1, "name", to="\ud800"), "category 3 has the name"),
    # masks that would take all memory to draw: by their own length, and blown up from their box
    "polygon without end": (changed(A, 4, "segmentation", to=[[0, 0, 50, 40] * 45_000]), "annotation 12 .* px long"),
    "polygon blown up": (
        changed(
            A, 4, to={**CONTENT["annotations"][4], "bbox": [0, 0, 1e-9, 5], "segmentation": [[0, 0, 50, 40] * 300]}
        ),
        "annotation 12 .*blown up from its box.*Correct the segmentation or the bbox",
    ),
    # images
    "image twice": (changed("images", 2, "id", to=5), "image id 5 is there twice"),
    "image without id": (changed("images", 2, "id", remove=True), "image number 2 .* has no id"),
    "image id true": (changed("images", 2, "id", to=True), "has the id True"),
    "image id huge": (changed("images", 2, "id", to=2**63), "9223372036854775808 is too large"),
    "image ids mixed": (changed("images", 2, "id", to="5"), r"are numbers and texts \(5, '5'\)"),
    "no height": (changed("images", 2, "height", remove=True), "image 900000000000 has no height"),
    "height a text": (changed("images", 2, "height", to="40"), "has height '40'"),
    "width 0": (changed("images", 2, "width", to=0), "has width 0"),
    "width a fraction": (changed("images", 2, "width", to=1.5), "has width 1.5"),
    "no file name": (changed("images", 0, "file_name", remove=True), "image 5 has no file_name"),
    "file name a number": (changed("images", 0, "file_name", to=3), "image 5 has the file_name 3"),
    "file name absolute": (
        changed("images", 0, "file_name", to="/etc/passwd"),
        "'/etc/passwd', which leaves the image",
    ),
    "file name upwards": (changed("images", 0, "file_name", to="../x.jpg"), r"'\.\./x\.jpg', which leaves the image"),
    "file name through": (changed("images", 0, "file_name", to="a/../../x"), "which leaves the image folder"),
    "file name upwards, Windows": (
        changed("images", 0, "file_name", to="a\\..\\..\\x"),
        "which leaves the image folder",
    ),
    "file name with a zero": (changed("images", 0, "file_name", to="a\0b"), "which no file can have"),
    # annotations
    "annotation twice": (changed(A, 1, "id", to=10), "annotation id 10 is there twice"),
    "annotation without id": (changed(A, 1, "id", remove=True), "annotation number 1 .* has no id"),
    "no such image": (changed(A, 1, "image_id", to=6), "annotation 2 has image_id 6, which 'images' does not have"),
    "image of another type": (changed(A, 1, "image_id", to="5"), "annotation 2 has image_id '5'"),
    "image 1.0": (changed(A, 0, "image_id", to=1.0), "annotation 10 has image_id 1.0"),
    "no image_id": (changed(A, 0, "image_id", remove=True), "annotation 10 has no image_id"),
    "undeclared category": (changed(A, 0, "category_id", to=4), r"10 has category_id 4, .* declare \(it has 3, 17\)"),
    "category a list": (changed(A, 0, "category_id", to=[3]), r"annotation 10 has category_id \[3\]"),
    "iscrowd 2": (changed(A, 0, "iscrowd", to=2), "annotation 10 has iscrowd 2"),
    "iscrowd a list": (changed(A, 0, "iscrowd", to=[]), r"annotation 10 has iscrowd \[\]"),
    "area a text": (changed(A, 0, "area", to="12"), "annotation 10 has area '12'"),
    "area below 0": (changed(A, 0, "area", to=-1), "annotation 10 has area -1"),
    "area nan": (changed(A, 0, "area", to=float("nan")), "annotation 10 has area nan"),
    # boxes
    "no box": (changed(A, 0, "bbox", remove=True), "annotation 10 has no bbox"),
    "box of three": (changed(A, 0, "bbox", to=[1, 2, 3]), r"annotation 10 has the bbox \[1, 2, 3\]"),
    "box of texts": (changed(A, 0, "bbox", to=["1", "2", "3", "4"]), r"has the bbox \['1'"),
    "box nan": (changed(A, 0, "bbox", to=[1, 2, float("nan"), 4]), r"has the bbox \[1, 2, nan, 4\]"),
    "box infinite": (changed(A, 0, "bbox", to=[1, 2, float("inf"), 4]), "four finite numbers"),
    "box beyond floats": (changed(A, 0, "bbox", to=[10**400, 2, 3, 4]), "four finite numbers"),
    "box without width": (changed(A, 0, "bbox", to=[1, 2, 0, 4]), r"annotation 10 .*\[1.0, 2.0, 0.0, 4.0\].* no area"),
    "box turned inside out": (changed(A, 0, "bbox", to=[1, 2, 3, -4]), "annotation 10 .* no area"),
    # segmentations
    "polygon flat": (changed(A, 0, "segmentation", to=[1, 2, 3, 4, 5, 6]), "annotation 10 .*list of polygons"),
    "polygon a text": (changed(A, 0, "segmentation", to=["abcdef"]), "annotation 10 .*list of polygons"),
    "polygon of two points": (changed(A, 0, "segmentation", to=[[1, 2, 3, 4]]), "annotation 10 .*fewer than 3 points"),
    "polygon empty": (changed(A, 0, "segmentation", to=[[]]), "annotation 10 .*fewer than 3 points"),
    "polygon odd": (changed(A, 0, "segmentation", to=[[1, 2, 3, 4, 5, 6, 7]]), "annotation 10 .*odd number"),
    "polygon nan": (changed(A, 0, "segmentation", 1, 3, to=float("nan")), "annotation 10 .*coordinate nan"),
    "polygon far away": (changed(A, 0, "segmentation", 1, 3, to=1e9), "annotation 10 .*coordinate 1000000000.0"),
    "segmentation a number": (changed(A, 0, "segmentation", to=5), "annotation 10 has the segmentation 5"),
    "RLE without counts": (changed(A, 0, "segmentation", to={"size": [50, 40]}), "annotation 10 has the segmentation"),
    "RLE of another size": (changed(A, 0, "segmentation", to=RLE), r"size \[40, 50\], but its image is \[50, 40\]"),
    "RLE too short": (changed(A, 1, "segmentation", "counts", to=[1000, 20]), "annotation 2 .*do not sum up"),
    "RLE below 0": (changed(A, 1, "segmentation", "counts", to=[2001, -1]), "annotation 2 .*do not sum up"),
    "RLE overflowing": (changed(A, 1, "segmentation", "counts", to=[2**64, 2000 - 2**64]), "annotation 2 has the segm"),
    "RLE torn": (changed(A, 2, "segmentation", "counts", to="PPP"), "annotation 11 .*counts are damaged"),
    "RLE not ASCII": (changed(A, 2, "segmentation", "counts", to="é"), "annotation 11 has the segmentation"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_it_is_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    content, expected = BROKEN[case]
    with pytest.raises(DataError, match=expected) as error:
        read_coco(write_json(tmp_path, content), tmp_path)
    assert str(tmp_path / "instances.json") in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_images_may_be_links_to_files_and_folders_elsewhere(tmp_path: Path) -> None:
    """As splits, DVC, git-annex and download caches make them."""
    small_set(tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "images/five.png").rename(store / "0a1b")
    (tmp_path / "images/five.png").symlink_to("../store/0a1b")
    dataset = read_coco(write_json(tmp_path, CONTENT), tmp_path / "images")
    dataset.check_files_exist()
    (tmp_path / "images/folder").symlink_to(store)
    path = write_json(tmp_path, changed("images", 0, "file_name", to="folder/0a1b"))
    read_coco(path, tmp_path / "images").check_files_exist()
    (store / "0a1b").unlink()
    with pytest.raises(DataError, match=r"five.png \(a link to .*store/0a1b, which is not there\)"):
        dataset.check_files_exist()


def test_absolute_and_climbing_names_are_read_when_that_is_asked_for(tmp_path: Path) -> None:
    small_set(tmp_path)
    (tmp_path / "elsewhere.png").write_bytes((tmp_path / "images/five.png").read_bytes())
    for name in (str(tmp_path / "elsewhere.png"), "../elsewhere.png", "..\\elsewhere.png"):
        path = write_json(tmp_path, changed("images", 0, "file_name", to=name))
        with pytest.raises(DataError, match=r"leaves the image folder.*DATASETS.ABSOLUTE_FILE_NAMES True"):
            read_coco(path, tmp_path / "images")
        read_coco(path, tmp_path / "images", absolute_file_names=True).check_files_exist()


def test_backslashes_are_slashes(tmp_path: Path) -> None:
    small_set(tmp_path)
    (tmp_path / "images/sub").mkdir(exist_ok=True)
    (tmp_path / "images/five.png").rename(tmp_path / "images/sub/five.png")
    path = write_json(tmp_path, changed("images", 0, "file_name", to="sub\\five.png"))
    read_coco(path, tmp_path / "images").check_files_exist()


NEAR = {
    "case": ("FIVE.PNG", "five.png"),
    "percent": ("a%20b.png", "a b.png"),
    "percent on the disk": ("a b.png", "a%20b.png"),
    "composed": ("caf\u00e9.png", "cafe\u0301.png"),
    "decomposed": ("cafe\u0301.png", "caf\u00e9.png"),
    "ending": ("five.jpg", "five.jpeg"),
    "another format": ("five.jpg", "five.png"),
    "space": ("five.png ", "five.png"),
    "folder too many": ("images/five.png", "five.png"),
    "upload folder": ("data/local-files/five.png", "five.png"),
    "case of a folder": ("SUB/five.png", "sub/five.png"),
}


@pytest.mark.parametrize("case", NEAR)
def test_a_near_miss_of_a_file_name_is_named(tmp_path: Path, case: str) -> None:
    declared, there = NEAR[case]
    small_set(tmp_path)
    target = tmp_path / "images" / there
    target.parent.mkdir(exist_ok=True)
    (tmp_path / "images/five.png").rename(target)
    path = write_json(tmp_path, changed("images", 0, "file_name", to=declared))
    with pytest.raises(DataError) as error:
        read_coco(path, tmp_path / "images").check_files_exist()
    assert f"{declared!a} ({there!a} is there)" in str(error.value) and "--fix" in str(error.value)
    report = check_dataset(path, tmp_path / "images", decode=False)
    assert [f.detail for f in report.findings.of_kinds("file-name-off")] == [f"there is no such file, but {there!a}"]


def test_of_several_near_misses_none_is_taken(tmp_path: Path) -> None:
    for name in ("A.png", "a.PNG"):
        (tmp_path / name).touch()
    assert NearMisses(tmp_path).of("a.png") is None and NearMisses(tmp_path).of("b.png") is None


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    small_set(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    read_coco(tmp_path / "instances.json", tmp_path / "link").check_files_exist()


def test_paths_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"annotation file .*none.json is not there"):
        read_coco(tmp_path / "none.json", tmp_path)
    with pytest.raises(DataError, match=r"folder of images .*nowhere"):
        read_coco(write_json(tmp_path, CONTENT), tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        read_coco(tmp_path, tmp_path)


VALUES = (
    None, True, 0, -1, 3, 5, 2**64, 10**400, 0.5, 1e308, float("nan"), float("-inf"), "", "a", "\ud800", [], {}, [[]],
    [[[]]], [1, 2, 3, 4], ["a"] * 4, [None] * 4, [[1, 2, 3, 4, 5, 6]], ["abcdef"], [{}], {"a": 1}, RLE,
    {"size": [40, 50], "counts": "abc"}, {"segmentation": [[1, 2, 3]]},
)  # fmt: skip


def test_any_value_anywhere_gives_a_data_set_or_a_sentence(tmp_path: Path) -> None:
    """A tenth of all places times values, and texts cut or changed anywhere."""

    def places(value: Any, path: tuple = ()) -> list[tuple]:
        found = [path] if path else []
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            found += places(value[key], (*path, key))
        return found

    chance = random.Random(4)
    cases = [changed(*place, to=value) for place in places(CONTENT) for value in VALUES if chance.random() < 0.1]
    text = json.dumps(CONTENT)
    for _ in range(150):
        at = chance.randrange(len(text))
        cases += [text[:at] + chance.choice('0-9.,[]{}"\\ eE') + text[at + 1 :]]
    outcomes = {"read": 0, "refused": 0}
    for content in cases:
        path = write_json(tmp_path, copy.deepcopy(content))
        for lenient in (False, True):
            try:
                dataset = read_coco(path, tmp_path, drop_empty_boxes=lenient)
                for i in range(len(dataset)):
                    dataset.image(i), dataset.annotations(i)
                dataset.drop_empty()
                outcomes["read"] += 1
            except DataError as error:
                assert str(path) in str(error)
                outcomes["refused"] += 1
    assert outcomes["read"] > 20 and outcomes["refused"] > 200, outcomes
