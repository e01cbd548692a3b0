"""A sound set is found sound; each of many broken ones is found, named with its place, and mended where it can be."""

from __future__ import annotations

import copy
import json
import random

import cv2
import numpy as np
import pytest
from broken_sets import BROKEN, HEIGHT, WIDTH, Set, pixels
from PIL import Image
from pycocotools import mask as mask_tools
from tiff_files import write_tiff

from se_det.cli.main import main
from se_det.data import read_coco, read_image
from se_det.data.check import KINDS, check_dataset, compare_splits, image_files
from se_det.data.check.repair import write_cleaned
from se_det.errors import DataError

UNMENDABLE = {"not JSON", "empty file", "a list", "no categories", "category id twice"}


@pytest.fixture
def it(tmp_path):
    return Set(tmp_path)


def snapshot(folder):
    return {str(p): (p.read_bytes() if p.is_file() else None, p.lstat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


def test_a_sound_set_is_found_sound(it):
    report = check_dataset(*it.save())
    assert [(f.kind, f.id) for f in report.findings] == [("no-mask", 70), ("no-mask", 80)], report.text()
    assert report.errors == 0
    assert report.classes == [("cup", 4), ("owl", 4)]
    assert report.box_sides()[:2].tolist() == [20.0, pytest.approx(360**0.5)]
    # The fifth mask is an RLE of 8 x 30 px, the sixth a crowd of the whole image; the last two have none.
    assert np.nan_to_num(report.masks.area, nan=-1).tolist() == [400, 360, 150, 672, 240, 3072, -1, -1]


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_found_and_named(it, name):
    spoil, kind, place = BROKEN[name]
    spoil(it)
    report = check_dataset(*it.save())
    found = report.findings.of_kinds(kind)
    assert found, report.text()
    assert place is None or any(place in (finding.id, finding.file) for finding in found), report.text()
    assert kind in report.text()
    json.dumps(report.as_dict(), allow_nan=False)
    assert bool(report.errors) == any(KINDS[k].severity == "error" for k in report.findings.counts())


def test_nothing_else_is_made_of_a_fault(it):
    """One fault, one error: those that have others in their train are listed here."""
    more = {
        "no categories", "annotations no list", "corners, with masks", "corners, boxes only", "normalised",
        "normalised, boxes only", "image id twice", "category id twice",
    }  # fmt: skip
    folder = it.folder
    for number, (name, (spoil, kind, _)) in enumerate(BROKEN.items()):
        if name in more or KINDS[kind].severity != "error":
            continue
        (folder / str(number)).mkdir()
        one = Set(folder / str(number))
        spoil(one)
        report = check_dataset(*one.save())
        assert report.findings.counts("error") == {kind: 1}, (name, report.text())


def test_whole_files_of_another_convention(it):
    for name in ("corners, with masks", "corners, boxes only"):
        one = it.folder / name
        one.mkdir()
        broken = Set(one)
        BROKEN[name][0](broken)
        report = check_dataset(*broken.save())
        # All but the box at the origin, which is the same in both.
        assert {f.id for f in report.findings.of_kinds("box-xyxy")} == {10, 20, 30, 40, 50, 70, 80}
        assert set(report.findings.counts("error")) == {"box-xyxy"}


@pytest.mark.parametrize("name", BROKEN)
def test_the_cleaned_copy_is_sound_and_the_input_untouched(it, tmp_path_factory, name):
    BROKEN[name][0](it)
    report = check_dataset(*it.save())
    before, out = snapshot(it.folder), tmp_path_factory.mktemp("fixed") / "out"
    if name in UNMENDABLE:
        with pytest.raises(DataError):
            write_cleaned(report, out)
        assert not (out / "annotations.json").exists()
    else:
        changes = write_cleaned(report, out).changes
        assert json.loads((out / "changes.json").read_text()) == changes
        again = check_dataset(out / "annotations.json", out / "images")
        if json.loads((out / "annotations.json").read_text())["images"]:
            assert again.errors == 0, again.text()
            dataset = read_coco(out / "annotations.json", out / "images")
            dataset.check_files_exist()
        if report.errors:
            assert changes
    assert snapshot(it.folder) == before


def cleaned(it, out):
    report = check_dataset(*it.save())
    changes = write_cleaned(report, out).changes
    content = json.loads((out / "annotations.json").read_text())
    return content, {annotation["id"]: annotation for annotation in content["annotations"]}, changes


def test_a_sound_set_is_copied_as_it_is(it, tmp_path):
    content, _, changes = cleaned(it, tmp_path / "out")
    assert changes == [] and content == it.content
    for name in ("a.jpg", "b.png", "sub/c.jpg"):
        assert (tmp_path / "out" / "images" / name).read_bytes() == (it.images / name).read_bytes()


@pytest.mark.parametrize("name", ["corners, with masks", "normalised", "corners, boxes only", "normalised, boxes only"])
def test_boxes_are_brought_back(it, tmp_path, name):
    wanted = {a["id"]: a["bbox"] for a in it.content["annotations"]}
    BROKEN[name][0](it)
    _, by_id, changes = cleaned(it, tmp_path / "out")
    assert {i: a["bbox"] for i, a in by_id.items()} == {i: pytest.approx(box, abs=1e-4) for i, box in wanted.items()}
    assert {c["id"] for c in changes} >= {10, 20, 30}


def test_a_picture_turned_after_it_was_annotated_is_stored_as_it_was_annotated(it, tmp_path):
    BROKEN["EXIF rotation left out"][0](it)
    _, _, changes = cleaned(it, tmp_path / "out")
    assert [c["change"] for c in changes] == ["stored without EXIF rotation"]
    with Image.open(tmp_path / "out" / "images" / "a.jpg") as after, Image.open(it.images / "a.jpg") as before:
        assert after.size == (WIDTH, HEIGHT) and after.getexif().get(274) == 1
        assert np.array_equal(np.asarray(after), np.asarray(before))  # as stored: Pillow does not turn


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_tiff_turned_after_it_was_annotated_is_stored_as_it_was_annotated(it, tmp_path, orientation):
    stored = pixels(1, HEIGHT, WIDTH)
    it.put("a.tif", Image.fromarray(stored), tiffinfo={274: orientation})
    it.content["images"][0]["file_name"] = "a.tif"
    _, _, changes = cleaned(it, tmp_path / "out")
    assert [c["change"] for c in changes] == ["stored without EXIF rotation"]
    assert np.array_equal(read_image(tmp_path / "out" / "images" / "a.tif", "RGB"), stored)


RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 4 + 4, 10, HEIGHT * WIDTH - HEIGHT * 4 - 14]}
SQUARE = [4, 4, 24, 4, 24, 24, 4, 24]
# What one annotation has in another form, and what is meant by it.
FORMS = {
    "category id a float": ({"category_id": 3.0}, {"category_id": 3}),
    "category id a text": ({"category_id": "3"}, {"category_id": 3}),
    "image id a float": ({"image_id": 1.0}, {"image_id": 1}),
    "image id a text": ({"image_id": "1"}, {"image_id": 1}),
    "id a float": ({"id": 10.0}, {"id": 10}),
    "box of texts": ({"bbox": ["4", "4.0", " 20", "2e1"]}, {"bbox": [4, 4, 20, 20]}),
    "box a text": ({"bbox": "4, 4, 20, 20"}, {"bbox": [4, 4, 20, 20]}),
    "box in brackets": ({"bbox": "[4.0 4.0 20.0 20.0]"}, {"bbox": [4, 4, 20, 20]}),
    "box an object": ({"bbox": {"x": 4, "y": 4, "width": 20, "height": 20}}, {"bbox": [4, 4, 20, 20]}),
    "box in a list": ({"bbox": [[4, 4, 20, 20]]}, {"bbox": [4, 4, 20, 20]}),
    "no box": ({"bbox": None}, {"bbox": [4, 4, 20, 20]}),
    "box of nan": ({"bbox": [float("nan")] * 4}, {"bbox": [4, 4, 20, 20]}),
    "no box beside runs": ({"bbox": [], "segmentation": RUNS, "area": 10}, {"bbox": [4, 4, 1, 10]}),
    "area a text": ({"area": "400"}, {"area": 400}),
    "crowd false": ({"iscrowd": "false"}, {"iscrowd": 0}),
    "crowd a float": ({"iscrowd": 0.0}, {"iscrowd": 0}),
    "crowd null": ({"iscrowd": None}, {"iscrowd": 0}),
    "flat polygon": ({"segmentation": SQUARE}, {"segmentation": [SQUARE]}),
    "polygon of texts": ({"segmentation": [[str(v) for v in SQUARE]]}, {"segmentation": [SQUARE]}),
    "flat polygon of texts": ({"segmentation": [str(v) for v in SQUARE]}, {"segmentation": [SQUARE]}),
    "polygon a text": ({"segmentation": ["4,4 24,4 24,24 4,24"]}, {"segmentation": [SQUARE]}),
    "pairs": ({"segmentation": [SQUARE[i : i + 2] for i in range(0, 8, 2)]}, {"segmentation": [SQUARE]}),
    "polygons of pairs": ({"segmentation": [[SQUARE[i : i + 2] for i in range(0, 8, 2)]]}, {"segmentation": [SQUARE]}),
    "points": (
        {"segmentation": [{"x": x, "y": y} for x, y in zip(SQUARE[::2], SQUARE[1::2])]}, {"segmentation": [SQUARE]}
    ),
    "segmentation as JSON": ({"segmentation": json.dumps([SQUARE])}, {"segmentation": [SQUARE]}),
    "runs of floats": (
        {"segmentation": {**RUNS, "counts": [float(v) for v in RUNS["counts"]]}, "bbox": [4, 4, 1, 10], "area": 10},
        {"segmentation": RUNS},
    ),
    "runs of texts": (
        {"segmentation": {"size": [str(v) for v in RUNS["size"]], "counts": RUNS["counts"]}, "bbox": [4, 4, 1, 10],
         "area": 10},
        {"segmentation": RUNS},
    ),
    "runs in a list": ({"segmentation": [RUNS], "bbox": [4, 4, 1, 10], "area": 10}, {"segmentation": RUNS}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_what_has_one_meaning_is_converted(it, tmp_path, name):
    given, meant = FORMS[name]
    it.content["annotations"][0].update(given)
    report = check_dataset(*it.save())
    assert set(report.findings.counts("error")) == {"other-form"}, report.text()
    _, by_id, changes = cleaned(it, tmp_path / "out")
    assert {key: by_id[10][key] for key in meant} == meant
    assert len(by_id) == 8 and {c["id"] for c in changes} == {10}


def test_a_whole_file_from_a_spreadsheet_is_converted(it, tmp_path):
    """Every id and number a float or a text, as pandas writes them."""
    for entry in it.content["images"]:
        entry.update(id=float(entry["id"]), width=str(entry["width"]), height=f"{entry['height']}.0")
    for entry in it.content["annotations"]:
        entry.update(id=str(entry["id"]), image_id=float(entry["image_id"]), category_id=str(entry["category_id"]))
        entry["bbox"] = [str(v) for v in entry["bbox"]]
    for entry in it.content["categories"]:
        entry["id"] = float(entry["id"])
    content, by_id, _ = cleaned(it, tmp_path / "out")
    assert len(content["images"]) == 4 and len(by_id) == 8
    assert [c["id"] for c in content["categories"]] == [3, 8]


def test_texts_as_ids_stay_texts(it, tmp_path):
    for entry in it.content["images"]:
        entry["id"] = f"00{entry['id']}"
    for entry in it.content["annotations"]:
        entry["image_id"] = f"00{entry['image_id']}"
    assert not check_dataset(*it.save()).errors


def test_names_are_written_as_on_the_disk(it, tmp_path):
    it.content["images"][1]["file_name"] = "B.PNG"
    it.content["images"][2]["file_name"] = "sub\\c.jpg"
    content, by_id, changes = cleaned(it, tmp_path / "out")
    assert [i["file_name"] for i in content["images"]][1:3] == ["b.png", "sub/c.jpg"] and len(by_id) == 8
    assert [c["change"] for c in changes] == ["file_name corrected to 'b.png'", "file_name corrected to 'sub/c.jpg'"]


def test_absolute_names_are_copied_into_the_folder(it, tmp_path):
    other = it.folder / "other" / "b.png"
    other.parent.mkdir()
    (it.images / "b.png").rename(other)
    it.content["images"][1]["file_name"] = str(other)
    report = check_dataset(*it.save(), absolute_file_names=True)
    assert not report.errors
    write_cleaned(report, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert content["images"][1]["file_name"] == "b.png"
    read_coco(tmp_path / "out" / "annotations.json", tmp_path / "out" / "images").check_files_exist()


def test_a_hole_is_told_of_and_encoded_where_the_area_says_so(it, tmp_path):
    squares = ((4, 4, 20), (8, 8, 10), (10, 10, 4))
    outer, hole, island = ([x, y, x + s, y, x + s, y + s, x, y + s] for x, y, s in squares)
    first, second = it.content["annotations"][:2]
    first.update(segmentation=[hole, outer, island], area=400 - 100 + 16)
    second.update(segmentation=[outer, hole], bbox=[4, 4, 20, 20], image_id=1, area=400)
    report = check_dataset(*it.save())
    assert [(f.id, f.detail) for f in report.findings.of_kinds("polygon-hole")] == [
        (10, "1 of its polygons lies inside another: a hole?"), (20, "1 of its polygons lies inside another: a hole?")
    ]  # fmt: skip
    _, by_id, changes = cleaned(it, tmp_path / "out")
    mask = mask_tools.decode(by_id[10]["segmentation"])
    assert mask.sum() == 316 and mask[9, 9] == 0 and mask[12, 12] == 1 and mask[5, 5] == 1
    assert by_id[20]["segmentation"] == [outer, hole]  # its area is that of the filled outline
    assert [c["id"] for c in changes if "holes" in c["change"]] == [10]


def test_polygons_that_are_no_holes(it):
    one, beside, across = ([x, y, x + s, y, x + s, y + s, x, y + s] for x, y, s in ((4, 4, 20), (30, 4, 8), (20, 4, 8)))
    for segmentation in ([one, beside], [one, across], [one, one], [one]):
        it.content["annotations"][0].update(segmentation=segmentation)
        assert not check_dataset(*it.save()).findings.of_kinds("polygon-hole"), segmentation


def test_crowds_that_labelling_tools_make(it, tmp_path, capsys):
    for entry in it.content["annotations"]:
        entry["iscrowd"] = 1
    report = check_dataset(*it.save())
    (only,) = report.findings.of_kinds("class-of-crowds")
    assert "all annotations of 'cup' (4), 'owl' (4) are crowds" in only.detail
    (many,) = report.findings.of_kinds("many-crowds")
    assert "8 of 8 annotations are crowds (100 %" in many.detail and "--uncrowd" in report.text()
    copy = write_cleaned(report, tmp_path / "out", uncrowd=True)
    assert copy.annotations == (8, 8)
    dataset = read_coco(tmp_path / "out" / "annotations.json", tmp_path / "out" / "images")
    assert dataset.has_annotations()


def test_one_crowd_is_nothing_unusual(it):
    report = check_dataset(*it.save())
    assert report.annotations.crowd.sum() == 1
    assert not report.findings.of_kinds("class-of-crowds", "many-crowds")


@pytest.mark.parametrize("mark", [
    {"ignore": 1}, {"difficult": True}, {"isGroupOf": "1"}, {"is_crowd": 1.0}, {"Difficult": 1},
    {"attributes": {"difficult": True}}, {"attributes": {"IsGroupOf": 1}},
])  # fmt: skip
def test_marks_like_crowds_are_told_of(it, mark):
    it.content["annotations"][0].update(mark)
    (found,) = check_dataset(*it.save()).findings.of_kinds("crowd-like")
    assert found.id == 10 and next(iter(mark)) in found.detail
    it.content["annotations"][0]["iscrowd"] = 1
    assert not check_dataset(*it.save()).findings.of_kinds("crowd-like")


def test_more_objects_than_AP_looks_at(it):
    extra = [{**it.content["annotations"][0], "id": 1000 + i, "bbox": [4, 4, 20 - i / 10, 20]} for i in range(101)]
    it.content["annotations"] += extra
    (found,) = check_dataset(*it.save()).findings.of_kinds("crowded-image")
    assert found.id == 1 and KINDS["crowded-image"].severity == "warning"


def test_a_copy_of_nearly_nothing_is_not_called_cleaned(it, tmp_path, capsys):
    for entry in it.content["annotations"][:6]:
        entry["bbox"], entry["segmentation"] = "none", None
    path, images = it.save()
    args = ["check-data", "--json", str(path), "--images", str(images), "--fix", str(tmp_path / "out")]
    assert main(args) == 1
    assert "could not be cleaned" in capsys.readouterr().err


def test_a_copy_without_the_masks_is_not_called_cleaned(it, tmp_path):
    for entry in it.content["annotations"]:
        if entry.get("segmentation"):
            entry["segmentation"] = {"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}
    copy = write_cleaned(check_dataset(*it.save()), tmp_path / "out")
    assert copy.annotations == (8, 8) and copy.masks == (0, 6) and not copy.is_usable


@pytest.mark.parametrize("area", ["1,234", "1.234,5", "1,5"])
def test_numbers_with_a_comma_have_no_one_meaning(it, area):
    it.content["annotations"][0]["area"] = area
    report = check_dataset(*it.save())
    assert set(report.findings.counts("error")) == {"wrong-type"}


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("name", ["b.png", "b.tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_of_fewer_bits_in_16_are_told_and_scaled_by_one_factor(it, tmp_path, bits, name, channels):
    white = 2**bits - 1
    values = [np.linspace(0, top, HEIGHT * WIDTH * channels).astype(np.uint16) for top in (white, white // 2)]
    values = [v.reshape(HEIGHT, WIDTH, channels).squeeze() for v in values]
    (it.images / "b.png").unlink()
    (it.images / "d.png").unlink()
    other = name.replace("b", "d")
    for file, value in zip((name, other), values):
        assert cv2.imwrite(str(it.images / file), value)
    it.content["images"][1]["file_name"], it.content["images"][3]["file_name"] = name, other
    report = check_dataset(*it.save())
    assert report.errors == 0
    (found,) = report.findings.of_kinds("16-bit-range")
    assert f"largest value of all images of 16 bits is {white} (of 65535)" in found.detail
    content, by_id, changes = cleaned(it, tmp_path / "out")
    assert len(by_id) == 8 and sum("scaled to 8 bits" in c["change"] for c in changes) == 2
    for at, value in zip((1, 3), values):
        stored = read_image(tmp_path / "out" / "images" / content["images"][at]["file_name"], "BGR")
        wanted = np.rint(value.astype(float) * 255 / white)
        np.testing.assert_allclose(stored, wanted if channels == 3 else np.dstack([wanted] * 3), atol=1)
    assert stored.max() in (127, 128)  # by one factor, not each by its own


def test_the_whole_range_of_16_bits_is_a_note(it):
    BROKEN["16 bit"][0](it)
    report = check_dataset(*it.save())
    assert not report.findings.of_kinds("16-bit-range") and report.findings.of_kinds("16-bit-image")


def test_what_goes_and_what_stays(it, tmp_path):
    BROKEN["truncated PNG"][0](it)
    BROKEN["box sticks out"][0](it)
    content, by_id, changes = cleaned(it, tmp_path / "out")
    assert [i["id"] for i in content["images"]] == [1, 3, 4] and set(by_id) == {10, 20, 50, 60, 70, 80}
    assert by_id[80]["bbox"] == [60, 40, 4, 6]
    assert [(c["part"], c["id"]) for c in changes] == [("images", 2), ("annotations", 80)]
    assert not (tmp_path / "out" / "images" / "b.png").exists()


def test_the_copy_never_lies_in_the_input(it):
    report = check_dataset(*it.save())
    for out in (it.folder, it.images, it.images / "new", it.folder.parent, it.folder / "set.json"):
        with pytest.raises(DataError, match="--fix"):
            write_cleaned(report, out)
    full = it.folder / "full"
    full.mkdir()
    (full / "kept.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        write_cleaned(report, full)
    assert [p.name for p in full.iterdir()] == ["kept.txt"]


def test_two_splits(it, tmp_path):
    (tmp_path / "val").mkdir()
    val = Set(tmp_path / "val")
    for seed, name in ((21, "a.jpg"), (22, "b.png"), (23, "sub/c.jpg")):
        val.put(name, Image.fromarray(pixels(seed)))
    val.content["categories"] = [{"id": 3, "name": "mug"}, {"id": 9, "name": "owl"}]
    report = check_dataset(*it.save())
    compare_splits(report, check_dataset(*val.save()))
    assert {f.id for f in report.findings.of_kinds("split-category")} == {3, 8, 9}
    assert [(f.id, f.file) for f in report.findings.of_kinds("split-duplicate")] == [(4, "d.png")]
    write_cleaned(report, tmp_path / "out")
    assert [i["id"] for i in json.loads((tmp_path / "out/annotations.json").read_text())["images"]] == [1, 2, 3]


@pytest.mark.shared_data
@pytest.mark.parametrize("split", ["train", "val"])
def test_no_false_alarm_on_coco(shared_data, split):
    """What is truly there: images without annotations, and categories that 50 images do not have."""
    path = shared_data / "coco" / "annotations" / f"instances_{split}2017.json"
    report = check_dataset(path, shared_data / "coco" / f"{split}2017")
    content = json.loads(path.read_text())
    annotated = {a["image_id"] for a in content["annotations"]}
    used = {a["category_id"] for a in content["annotations"]}
    assert report.findings.counts("error") == {} and report.findings.counts("warning") == {}
    assert {f.id for f in report.findings.of_kinds("image-without-annotations")} == {
        i["id"] for i in content["images"] if i["id"] not in annotated
    }
    assert {f.id for f in report.findings.of_kinds("unused-category")} == {
        c["id"] for c in content["categories"] if c["id"] not in used
    }
    assert set(report.findings.counts("note")) == {"image-without-annotations", "unused-category"}


NASTY = [None, True, -1, 1.5, 1e308, float("nan"), float("inf"), 10**400, 2**63, "",
         "\ud800", "a\0b", [], {}, [[]], [1],
         {"counts": "", "size": [1, 2]}, {"counts": [10**30], "size": [HEIGHT, WIDTH]}, "../x", [1, 2, 3, 4],
         [["1"] * 6], [None] * 4, "sub", "."]  # fmt: skip


def places(value, path=()):
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def test_whatever_stands_in_the_file_the_check_ends_with_a_report(it, tmp_path):
    """Values replaced at random; a cleaned copy, where one is written, is sound."""
    rng = random.Random(0)
    sound = copy.deepcopy(it.content)
    for number in range(80):
        it.content = copy.deepcopy(sound)
        for _ in range(rng.randint(1, 3)):
            *parents, last = rng.choice(list(places(it.content)))
            holder = it.content
            for key in parents:
                holder = holder[key]
            holder[last] = copy.deepcopy(rng.choice(NASTY))
        report = check_dataset(*it.save())
        json.dumps(report.as_dict(), allow_nan=False).encode()
        out = tmp_path.with_name(f"{tmp_path.name}_{number}")
        try:
            write_cleaned(report, out / "x")
        except DataError:
            continue
        again = check_dataset(out / "x" / "annotations.json", out / "x" / "images")
        assert set(again.findings.counts("error")) <= {"format"}, again.text()


def test_small_objects_in_large_images_are_noted(it):
    """Boxes of 40 px and less in images of 4,000 px: 8 px when these are resized to 800; as they are, nothing."""
    assert not check_dataset(*it.save(), decode=False).findings.of_kinds("small-for-image")
    for image in it.content["images"]:
        image["width"] = image["height"] = 4000
    (found,) = check_dataset(*it.save(), decode=False).findings.of_kinds("small-for-image")
    assert "4000 px" in found.detail and "800 px" in found.detail


def test_a_tiff_too_large_to_be_decoded_is_checked_in_parts(it, monkeypatch):
    it.save()
    name = it.content["images"][0]["file_name"]
    path = it.images / name
    with Image.open(path) as image:
        write_tiff(path.with_suffix(".tif"), np.asarray(image.convert("RGB")), rows=8)
        image.convert("RGB").save(path.with_suffix(".webp"), lossless=True)
        size = image.size[::-1]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", size[0] * size[1] // 4)
    found = image_files.inspect(it.images, path.with_suffix(".tif").name)
    assert found.fault is None and found.size == size
    found = image_files.inspect(it.images, path.with_suffix(".webp").name)
    assert found.fault == "unreadable-image" and "tiled TIFF" in found.detail
