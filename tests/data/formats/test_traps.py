"""What each format is known to be read wrong by."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from se_det.data.formats import open_data
from se_det.data.formats import sizes as sizes_module
from se_det.errors import DataError
from tests.data.formats import writers
from tests.data.formats.writers import coco_content, random_set, write_images


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path) -> Path:
    (folder := tmp_path / "set").mkdir()
    return folder


def image(path: Path, size: tuple[int, int] = (100, 80), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", size, (9, 99, 199)).save(path, "JPEG", exif=exif)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def only(root: Path):
    """The one split's data set, the annotations of its first image, and what was opened."""
    data = open_data(root)
    dataset = next(iter(data.splits.values())).read()
    return dataset, dataset.annotations(0), data


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        only(root)
    return str(caught.value)


def xml(width: int, height: int, *boxes: tuple, extra: str = "") -> str:
    objects = "".join(
        f"<object><name>cat</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height></size>" if width is not None else ""
    return f"<annotation><filename>a.jpg</filename>{size}{extra}{objects}</annotation>"


# EXIF: a picture of 100 x 80 px as stored, shown turned; a box drawn on one or the other.


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_masks_drawn_on_the_stored_image_are_turned_with_it(root, orientation):
    mask = np.zeros((80, 100), bool)
    mask[10:30, 20:60] = True
    mask[10:20, 20:30] = False
    image(root / "a.jpg", orientation=orientation)
    file = io.BytesIO()
    Image.fromarray(mask[10:30, 20:60]).save(file, "PNG")
    shape = {"label": "x", "shape_type": "mask", "points": [[20, 10], [59, 29]]}
    shape["mask"] = base64.b64encode(file.getvalue()).decode()
    corners = {"label": "x", "shape_type": "polygon", "points": [[20, 10], [60, 10], [60, 30], [20, 30]]}
    box = {"label": "x", "shape_type": "rectangle", "points": [[20, 10], [60, 30]]}
    content = {"shapes": [shape, corners, box], "imagePath": "a.jpg", "imageWidth": 100, "imageHeight": 80}
    text(root / "a.json", json.dumps(content))
    stored = Image.fromarray(mask.astype(np.uint8) * 255)
    exif = Image.Exif()
    exif[274] = orientation
    stored.info["exif"] = exif.tobytes()
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)
    from PIL import ImageOps

    shown = np.asarray(ImageOps.exif_transpose(Image.open(buffer))) > 127
    if orientation in (2, 3, 4):  # the size cannot tell: drawn on the image as it is shown
        shown = mask
    dataset, found, _ = only(root)
    info = dataset.image(0)
    assert (info.height, info.width) == shown.shape
    from se_det.data.rle import bitmap

    assert (bitmap(found.runs[0], info.height, info.width).astype(bool) == shown).all()
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_array_equal(found.boxes, [extent] * 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_boxes_drawn_on_either_image_of_a_turned_file(root, kind):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (100, 80)).save(root / f"a.{kind.lower()}", kind, exif=exif)  # shown: 80 x 100
    text(root / "a.xml", xml(80, 100, (11, 21, 40, 90)))
    assert only(root)[1].boxes.tolist() == [[10, 20, 40, 90]]
    text(root / "a.xml", xml(100, 80, (11, 21, 40, 70)))
    assert only(root)[1].boxes.tolist() == [[10, 10, 60, 40]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_yolo_is_shares_of_the_shown_image(root, kind):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (100, 80)).save(root / f"a.{kind.lower()}", kind, exif=exif)
    text(root / "a.txt", "0 0.5 0.5 0.5 0.2\n")
    _, found, _ = only(root)
    np.testing.assert_allclose(found.boxes, [[20, 40, 60, 60]])


def test_another_size_than_declared_is_refused(root):
    image(root / "a.jpg")
    text(root / "a.xml", xml(200, 160, (11, 21, 40, 70)))
    assert "declared to be 200 x 160 px" in refusal(root)


@pytest.mark.parametrize("size", [(None, None), (0, 0)])
def test_a_size_that_is_not_declared(root, size):
    image(root / "a.jpg")
    text(root / "a.xml", xml(*size, (11, 21, 40, 70)))
    assert only(root)[1].boxes.tolist() == [[10, 20, 40, 70]]


# YOLO


def test_yolo_lines_of_all_kinds(root):
    image(root / "images" / "a.jpg")
    lines = ["0 0.5 0.5 0.2 0.5", "1.0 0.1 0.1 0.5 0.1 0.5 0.5", "1 0.2 0.2 0.8 0.2 0.8 0.6 0.2 0.6", ""]
    text(root / "labels" / "a.txt", "\r\n".join(lines) + "\n")
    text(root / "data.yaml", "train: images\nval: images\nnames: [a, b]\n")
    _, found, data = only(root)
    np.testing.assert_allclose(found.boxes, [[40, 20, 60, 60], [10, 8, 50, 40], [20, 16, 80, 48]], atol=1e-5)
    assert found.classes.tolist() == [0, 1, 1] and found.polygon_owner.tolist() == [1, 2]
    assert any("in both train and val" in note for note in data.notes)


def test_yolo_values_just_outside_are_cut(root):
    image(root / "a.jpg")
    text(root / "a.txt", "0 0.05 0.5 0.14 1.02\n")
    np.testing.assert_allclose(only(root)[1].boxes, [[0, 0, 12, 80]], atol=1e-5)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 50 40 20 20", "line 2: 50 in '0 50 40 20 20' is no share"),
        ("7 0.5 0.5 0.2 0.2", "line 2: the class is 7, but there are 2 names"),
        ("-1 0.5 0.5 0.2 0.2", "line 2: the class is -1"),
        ("0.5 0.5 0.5 0.2 0.2", "line 2: the class '0.5' is '0.5'; it must be a whole number"),
        ("0 0.5 0.5 0.2 0.2 0.9", "line 2: 5 numbers follow the class (a box with a confidence"),
        ("0 0.5 0.5 0.2", "line 2: 3 numbers follow the class"),
        ("0 0.5 0.5 0.2 nan", "line 2: number 5 ('nan')"),
        ("0 0.5 0.5 0.2 O.2", "line 2: number 5 ('O.2')"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.2", "line 2: 7 numbers follow the class (keypoints? They need kpt_shape"),
    ],
)
def test_yolo_lines_that_are_none(root, line, sentence):
    image(root / "images" / "a.jpg")
    text(root / "labels" / "a.txt", f"0 0.5 0.5 0.2 0.2\n{line}\n")
    text(root / "data.yaml", "train: images\nnames: [a, b]\n")
    assert f"a.txt, {sentence}" in refusal(root)


def test_yolo_keypoints_of_3_and_2_numbers(root):
    image(root / "images" / "a.jpg")
    text(root / "labels" / "a.txt", "0 0.5 0.5 0.2 0.5 0.1 0.2 2 0.3 0.4 1 0 0 0\n")
    yaml = "train: images\nnames: [a]\nkpt_shape: [3, %d]\nflip_idx: [1, 0, 2]\n"
    text(root / "data.yaml", yaml % 3)
    written = json.loads(open_data(root).splits["train"].json_path.read_text())
    np.testing.assert_allclose(written["annotations"][0]["keypoints"], [10, 16, 2, 30, 32, 1, 0, 0, 0])
    assert written["annotations"][0]["num_keypoints"] == 2
    assert written["categories"][0]["keypoints"] == ["keypoint_0", "keypoint_1", "keypoint_2"]
    assert written["categories"][0]["flip"] == [["keypoint_0", "keypoint_1"]]
    text(root / "data.yaml", yaml % 2)
    text(root / "labels" / "a.txt", "0 0.5 0.5 0.2 0.5 0.1 0.2 0.3 0.4 0 0\n")
    written = json.loads(open_data(root).splits["train"].json_path.read_text())
    np.testing.assert_allclose(written["annotations"][0]["keypoints"], [10, 16, 2, 30, 32, 2, 0, 0, 0])


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("train: images\nnc: 3\nnames: [a, b]\n", "nc is 3, but names has 2 names"),
        ("train: images\nnames: {0: a, 2: b}\n", "they must go from 0 without a gap"),
        ("train: nowhere/images2\nnames: [a]\n", "train is 'nowhere/images2', but there is no"),
        ("train: images\nval: nothing\nnames: [a]\n", "val is 'nothing', but there is no"),
        ("train: images\nnames: [a, a]\n", "'a' is used twice"),
        ("train: images\nnames: !!python/object/apply:os.system [ls]\n", "tags that build Python objects"),
        ("train: images\nnames: [a]\nkpt_shape: [2, 4]\n", "kpt_shape is [2, 4]"),
        ("train: images\nnames: [a]\nkpt_shape: [2, 3]\nflip_idx: [0, 0]\n", "flip_idx is [0, 0]"),
    ],
)
def test_yolo_yaml_that_is_wrong(root, yaml, sentence):
    image(root / "images" / "a.jpg")
    text(root / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    text(root / "data.yaml", yaml)
    assert sentence in refusal(root)


def test_a_folder_of_images_without_labels_beside_is_no_background(root):
    image(root / "images" / "a.jpg")
    text(root / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    image(root / "screenshots" / "b.jpg")
    dataset, _, data = only(root)
    assert dataset.file_names == ["images/a.jpg"]
    assert data.skipped == {"images that no annotation belongs to, such as screenshots/b.jpg": 1}


def test_classes_of_nearly_one_name_are_told_of(root):
    image(root / "images" / "a.jpg")
    text(root / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    text(root / "data.yaml", "train: images\nnames: [fire truck, Fire_Truck, dog]\n")
    assert "'fire truck' and 'Fire_Truck' are different classes" in only(root)[2].notes


def test_linked_folders_of_images(root, tmp_path):
    image(root / "all" / "a.jpg")
    os.symlink(root / "all", root / "images")
    text(root / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    text(root / "data.yaml", "train: images\nnames: [a]\n")
    assert len(only(root)[0]) == 1


# VOC


def test_voc_one_based_boxes_reach_the_edge(root):
    image(root / "a.jpg")
    text(root / "a.xml", xml(100, 80, (1, 1, 100, 80), (50.5, 40, 60.25, 70)))
    assert only(root)[1].boxes.tolist() == [[0, 0, 100, 80], [49.5, 39, 60.25, 70]]


def test_one_zero_anywhere_means_that_pixels_are_counted_from_0(root):
    for name in ("a", "b"):
        image(root / f"{name}.jpg")
    text(root / "a.xml", xml(100, 80, (10, 10, 20, 20)))
    text(root / "b.xml", xml(100, 80, (0, 10, 20, 20)))
    assert only(root)[1].boxes.tolist() == [[10, 10, 20, 20]]


def test_boxes_without_area_are_counted_and_left_out(root):
    image(root / "a.jpg")
    text(root / "a.xml", xml(100, 80, (0, 0, 10, 10), (30, 30, 30, 60), (200, 200, 250, 250)))
    _, found, data = only(root)
    assert found.boxes.tolist() == [[0, 0, 10, 10]]
    assert data.skipped == {"boxes without area": 1, "boxes outside of the image": 1}


@pytest.mark.parametrize(
    "attack",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>',
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation></annotation>',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_entities_is_refused(root, attack, encoding):
    image(root / "a.jpg")
    (root / "a.xml").write_bytes(attack.replace("utf-8", encoding).encode(encoding))
    assert "document type" in refusal(root)


def test_voc_faults_name_file_object_and_value(root):
    image(root / "a.jpg")
    text(root / "a.xml", xml(100, 80, (1, 1, 10, 10), (1, "4O", 20, 20)))
    assert "a.xml, object 2: ymin is '4O'" in refusal(root)


# LabelMe


def labelme(root: Path, *shapes: dict, **more) -> None:
    image(root / "a.jpg")
    content = {"shapes": list(shapes), "imagePath": "a.jpg", "imageData": None, "imageWidth": 100, "imageHeight": 80}
    text(root / "a.json", json.dumps(content | more))


def test_labelme_shapes(root):
    circle = {"label": "ball", "shape_type": "circle", "points": [[50, 40], [50, 20]]}
    line = {"label": "ball", "shape_type": "line", "points": [[1, 1], [5, 5]]}
    parts = [
        {
            "label": "cat",
            "shape_type": "polygon",
            "group_id": 3,
            "points": [[x, 10], [x + 10, 10], [x + 10, 20], [x, 20]],
        }
        for x in (10, 60)
    ]
    labelme(root, circle, line, *parts, {"label": "cat", "points": [[1, 1], [2, 2]]})
    _, found, data = only(root)
    np.testing.assert_allclose(found.boxes, [[30, 20, 70, 60], [10, 10, 70, 20]], atol=1e-4)
    assert found.polygon_owner.tolist() == [0, 1, 1]
    assert found.areas[0] == pytest.approx(np.pi * 400, rel=0.01) and found.areas[1] == pytest.approx(200)
    assert data.skipped == {"shapes of the type 'line'": 1, "shapes of the type 'polygon' with fewer than 3 points": 1}


def test_labelme_without_its_image(root):
    labelme(root, {"label": "a", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}, imageData="aGVsbG8=")
    os.rename(root / "a.jpg", root / "z.jpg")
    assert "holds the image itself" in refusal(root)


# CVAT


def test_cvat_turned_box_ellipse_group_and_what_is_left_out(root):
    image(root / "images" / "a.jpg")
    shapes = (
        '<box label="cat" xtl="40" ytl="30" xbr="60" ybr="40" rotation="90.0"/>'
        '<ellipse label="cat" cx="50" cy="40" rx="20" ry="10" rotation="90"/>'
        '<polygon label="dog" group_id="2" points="1,1;9,1;9,9"/>'
        '<polygon label="dog" group_id="2" points="20,1;29,1;29,9"/>'
        '<polyline label="cat" points="1,1;2,2"/><box label="cat" outside="1" xtl="1" ytl="1" xbr="2" ybr="2"/>'
    )
    text(
        root / "annotations.xml",
        f'<annotations><image id="0" name="a.jpg" width="100" height="80">{shapes}</image></annotations>',
    )
    _, found, data = only(root)
    np.testing.assert_allclose(found.boxes, [[45, 25, 55, 45], [40, 20, 60, 60], [1, 1, 29, 9]], atol=1e-4)
    assert found.polygon_owner.tolist() == [0, 1, 2, 2]
    assert data.skipped == {"shapes of the type 'polyline'": 1, "shapes outside of the image": 1}


# CSV, Open Images


def test_csv_quoted_commas_and_an_image_alone(root):
    for name in ("a, b.jpg", "c.jpg"):
        image(root / name)
    text(root / "boxes.csv", '"a, b.jpg",1,2,30,40,"cat, big"\nc.jpg,,,,,\n')
    dataset, found, data = only(root)
    assert dataset.file_names == ["a, b.jpg", "c.jpg"] and data.categories == ("cat, big",)
    assert found.boxes.tolist() == [[1, 2, 30, 40]]


def test_csv_faults_name_the_line_and_the_value(root):
    image(root / "a.jpg")
    text(root / "boxes.csv", "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,3,4\na.jpg,cat,1,two,3,4\n")
    assert "boxes.csv, line 3: y1 is 'two'" in refusal(root)


def test_open_images_crowds_and_images_that_are_not_there(root):
    image(root / "train" / "a.jpg")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction"
    rows = ["a,x,/m/01,1,0.1,0.5,0.2,0.6,0,0,1,0", "a,x,/m/02,1,0.0,1.0,0.0,0.5,0,0,0,1", "b,x,/m/01,1,0,1,0,1,0,0,0,0"]
    text(root / "oidv6-train-annotations-bbox.csv", "\n".join([header, *rows]))
    text(root / "oidv6-class-descriptions.csv", "LabelName,DisplayName\n/m/01,Cat\n/m/02,Dog\n")
    _, found, data = only(root)
    np.testing.assert_allclose(found.boxes, [[10, 16, 50, 48], [0, 0, 100, 40]], atol=1e-4)
    assert found.crowd.tolist() == [True, False] and data.categories == ("Cat", "Dog")
    assert data.skipped == {"boxes of images that are not there": 1}


# COCO


def test_coco_that_is_sound_stays_the_file_that_it_is(root):
    samples = random_set(2, splits=("train", "val"))
    writers.coco(samples, root)
    split = open_data(root).splits["train"]
    assert split.json_path == root / "annotations" / "instances_train2017.json"
    assert split.images_folder == root / "train2017"


def test_coco_masks_of_cvats_brush_are_objects(root):
    samples = random_set(2, masks=True)
    content = coco_content(samples, rle=True)
    for entry in content["annotations"]:
        entry |= {"iscrowd": 1, "attributes": {"occluded": False}}
    write_images(samples, root / "images")
    text(root / "annotations" / "instances_default.json", json.dumps(content))
    dataset, found, data = only(root)
    assert dataset.has_annotations() and not found.crowd.any()
    assert any("brush" in note for note in data.notes)


def test_coco_images_of_one_name_in_two_folders_are_not_mixed_up(root):
    for folder, size in (("train", (100, 80)), ("val", (60, 50))):
        image(root / "images" / folder / "0.jpg", size)
    content = {"images": [{"id": 1, "file_name": "C:\\x\\0.jpg", "width": 100, "height": 80}]}
    content |= {"annotations": [], "categories": [{"id": 1, "name": "a"}]}
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    text(root / "coco.json", json.dumps(content))
    assert "may be" in refusal(root) and "images/train/0.jpg" in refusal(root)
    content["images"][0]["file_name"] = "C:\\x\\train\\0.jpg"
    text(root / "coco.json", json.dumps(content))
    assert only(root)[0].image(0).path == root / "images" / "train" / "0.jpg"


def test_coco_splits_whose_categories_differ_become_one_list(root):
    samples = random_set(2, splits=("train", "val"))
    writers.coco(samples, root)
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for entry in (*content["categories"], *content["annotations"]):
        key = "id" if "name" in entry else "category_id"
        entry[key] = 100 - entry[key]
    path.write_text(json.dumps(content))
    sets = [split.read() for split in open_data(root).splits.values()]
    assert sets[0].category_ids == sets[1].category_ids and sets[0].category_names == sets[1].category_names
    wanted = {s.name: [writers.CLASSES[t.label] for t in s.things] for s in samples}
    for dataset in sets:
        for i, name in enumerate(dataset.file_names):
            classes = dataset.annotations(i).classes
            assert [dataset.category_names[c] for c in classes] == wanted[name.rsplit("/", 1)[-1]]


# Sizes


def test_sizes_are_kept_until_their_files_change(root, monkeypatch):
    monkeypatch.setattr(sizes_module, "KEPT_FROM", 1)
    image(root / "a.jpg")
    text(root / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    only(root)
    opened = []
    real = sizes_module.open_image
    monkeypatch.setattr(sizes_module, "open_image", lambda file: opened.append(file) or real(file))
    assert only(root)[0].image(0).width == 100 and not opened
    image(root / "a.jpg", (60, 40))
    os.utime(root / "a.jpg", ns=(1, 1))
    assert only(root)[0].image(0).width == 60 and len(opened) == 1
    for path in (Path(os.environ["SE_DET_CACHE"]) / "image_sizes").iterdir():
        path.write_text('{"version": 1, "files": {"x": ["damaged"]}}')
    assert only(root)[0].image(0).width == 60


def test_a_name_that_is_no_text_is_refused(root):
    image(root / "a.jpg")
    text(root / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    for ending in ("jpg", "txt"):
        os.rename(root / f"a.{ending}", os.fsencode(root) + b"/\xff." + ending.encode())
    assert "is no UTF-8 text: rename it" in refusal(root)


def test_nothing_is_written_into_the_data_set(root):
    writers.yolo(random_set(1), root)
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    open_data(root)
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before


def test_a_damaged_image_is_named(root):
    writers.yolo(random_set(1), root)
    broken = next((root / "images" / "train").iterdir())
    broken.write_bytes(b"no image")
    assert f"The image {broken} cannot be read" in refusal(root)


def test_the_real_sets_in_other_formats(tmp_path, shared_data):
    """raccoon as YOLO, VOC and LabelMe, and coco as YOLO polygons, have the boxes of the COCO that they came from."""
    from tests.data.formats.conversions import to_labelme, to_voc, to_yolo

    for source, formats in (("raccoon", (to_yolo, to_voc, to_labelme)), ("coco", (to_yolo,))):
        original = open_data(shared_data / source)
        for write in formats:
            root = tmp_path / write.__name__ / source
            for split, opened in original.splits.items():
                write(opened.read(), root, split)
            converted = open_data(root)
            assert list(converted.splits) == list(original.splits)
            for split, opened in original.splits.items():
                one, other = opened.read(), converted.splits[split].read()
                assert one.category_names == other.category_names or source == "coco"
                wanted = {Path(name).name: one.annotations(i) for i, name in enumerate(one.file_names)}
                found = {Path(name).name: other.annotations(i) for i, name in enumerate(other.file_names)}
                assert wanted.keys() == found.keys()
                for name, given in wanted.items():
                    kept = ~given.crowd
                    names = [one.category_names[c] for c in given.classes[kept]]
                    assert [other.category_names[c] for c in found[name].classes] == names
                    off = 0.02 if source == "raccoon" else 1.5  # COCO's own boxes are so far off its polygons
                    np.testing.assert_allclose(found[name].boxes, given.boxes[kept], atol=off)
        shutil.rmtree(tmp_path / write.__name__)


def test_images_behind_a_link_out_of_the_folder(root, tmp_path):
    for split in ("train", "val"):
        image(tmp_path / "disk" / split / f"{split}.jpg")
        text(root / "labels" / split / f"{split}.txt", "0 0.5 0.5 0.2 0.2\n")
    os.symlink(tmp_path / "disk", root / "images")
    text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [a]\n")
    for name, split in open_data(root).splits.items():
        dataset = split.read()
        dataset.check_files_exist()
        assert dataset.image(0).path.resolve() == tmp_path / "disk" / name / f"{name}.jpg"


def test_a_yaml_apart_from_its_set(root):
    writers.yolo(random_set(1), root / "set")
    text(
        root / "configs" / "mine.yaml", (root / "set" / "data.yaml").read_text().replace("../somewhere/else", "../set")
    )
    data = open_data(root / "configs" / "mine.yaml")
    assert data.splits["train"].annotations > 0


def test_two_voc_folders_side_by_side(root):
    for year, seed in (("VOC2007", 1), ("VOC2012", 2)):
        writers.voc(random_set(seed, splits=("train", "val")), root / year)
    data = open_data(root)
    one, other = (random_set(seed, splits=("train", "val")) for seed in (1, 2))
    for split in ("train", "val"):
        wanted = sorted((s.width, len(s.things)) for s in (*one, *other) if s.split == split)
        dataset = data.splits[split].read()
        found = sorted((dataset.image(i).width, len(dataset.annotations(i).boxes)) for i in range(len(dataset)))
        assert found == wanted
    assert not data.skipped


def test_a_mask_of_another_size_is_refused(root):
    samples = random_set(1, masks=True)
    writers.voc(samples, root, masks=True)
    path = next(path for path in (root / "SegmentationObject").iterdir() if "empty" not in path.name)
    Image.new("P", (30, 30)).save(path)
    assert f"The mask {path} has 30 x 30 px" in refusal(root)


def test_a_json_of_annotations_beside_the_folder_of_its_images(root):
    samples = random_set(2, splits=("train", "val"))
    writers.coco(samples, root)
    data = open_data(root / "annotations" / "instances_val2017.json")
    assert list(data.splits) == ["val"] and data.splits["val"].images_folder == root / "val2017"


def test_images_of_another_set_beside_are_not_taken(root):
    writers.voc(random_set(1), root / "one")
    shutil.copytree(root / "one", root / "two")
    shutil.rmtree(root / "one" / "JPEGImages")
    assert "there is no image" in refusal(root / "one")
