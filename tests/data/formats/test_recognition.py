"""Folders as people have them: recognised, or refused in a sentence that says what was looked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from se_det.data.formats import open_data
from se_det.errors import DataError
from tests.data.formats import writers
from tests.data.formats.writers import CLASSES, coco_content, random_set, write_images

BOTH = random_set(3, splits=("train", "val"))
ONE = [s for s in BOTH if s.split == "train"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))


def image(path: Path, size: tuple[int, int] = (100, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 99, 199)).save(path, "JPEG")


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def coco_one_json_beside(root):
    write_images(ONE, root)
    text(root / "labels.json", json.dumps(coco_content(ONE)))


def coco_one_json_images_folder(root):
    write_images(ONE, root / "images")
    text(root / "annotations.json", json.dumps(coco_content(ONE)))


def coco_cvat(root):
    write_images(ONE, root / "images" / "default")
    text(root / "annotations" / "instances_default.json", json.dumps(coco_content(ONE)))


def coco_images_by_split(root):
    for split in ("train", "val"):
        some = [s for s in BOTH if s.split == split]
        write_images(some, root / "images" / split)
        text(root / "annotations" / f"{split}.json", json.dumps(coco_content(some)))


def coco_label_studio(root):
    content = coco_content(ONE)
    write_images(ONE, root / "images")
    for at, entry in enumerate(content["images"]):
        name = entry["file_name"]
        entry["file_name"] = (f"images\\{name}", f"../../label-studio/data/media/upload/1/{name}", f"/srv/x/{name}")[
            at % 3
        ]
        entry["id"] = float(entry["id"])
    for entry in content["annotations"]:
        entry["image_id"], entry["category_id"] = float(entry["image_id"]), float(entry["category_id"])
    text(root / "result.json", json.dumps(content))
    text(root / "notes.json", json.dumps({"categories": [], "info": {}}))


def coco_lvis(root):
    content = coco_content(ONE)
    write_images(ONE, root / "train2017")
    for entry in content["images"]:
        entry["coco_url"] = f"http://images.cocodataset.org/train2017/{entry.pop('file_name')}"
        entry |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    text(root / "lvis_v1_train.json", json.dumps(content))


def coco_official(root):
    writers.coco(BOTH, root)
    for name in ("captions_train2017", "person_keypoints_train2017"):
        shutil.copy(root / "annotations" / "instances_train2017.json", root / "annotations" / f"{name}.json")


def yolo(root):
    writers.yolo(BOTH, root)


def yolo_roboflow(root):
    for split, folder in (("train", "train"), ("val", "valid")):
        image(root / folder / "images" / f"{split}.jpg")
        text(root / folder / "labels" / f"{split}.txt", "0 0.5 0.5 0.2 0.2\n")
    text(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['cat']\n",
    )


def yolo_roboflow_moved(root):
    """The yaml says train/images, the folders are images/train: `images` alone would be both splits."""
    for split in ("train", "val"):
        image(root / "images" / split / f"{split}.jpg")
        text(root / "labels" / split / f"{split}.txt", "0 0.5 0.5 0.2 0.2\n")
    text(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: ['cat']\n")


def yolo_lists(root):
    yolo(root)
    for split in ("train", "val"):
        names = [f"./images/{split}/{s.name}\n" for s in BOTH if s.split == split]
        text(root / f"{split}.txt", "".join(names))
    text(root / "data.yaml", f"train: train.txt\nval: [val.txt]\nnames: {json.dumps(CLASSES)}\n")


def yolo_without_yaml(root):
    yolo(root)
    (root / "data.yaml").unlink()
    text(root / "classes.txt", "\n".join(CLASSES))


def yolo_flat(root):
    for at in range(3):
        image(root / f"{at}.jpg")
        text(root / f"{at}.txt", "1 0.5 0.5 0.2 0.2\n" if at else "")
    text(root / "classes.txt", "a\nb\n")


def yolo_darknet(root):
    for at in range(3):
        image(root / "obj_train_data" / f"{at}.jpg")
        text(root / "obj_train_data" / f"{at}.txt", "1 0.5 0.5 0.2 0.2\n")
    text(root / "train.txt", "".join(f"data/obj_train_data/{at}.jpg\n" for at in range(3)))
    text(root / "obj.names", "a\nb\n")
    text(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")


def voc(root):
    writers.voc(BOTH, root)


def voc_below_vocdevkit(root):
    writers.voc(BOTH, root / "VOCdevkit" / "VOC2012")


def voc_roboflow(root):
    writers.voc(BOTH, root / "x")
    for path in (root / "x" / "Annotations").iterdir():
        folder = root / ("train" if path.name.startswith("train") else "valid")
        folder.mkdir(exist_ok=True)
        shutil.move(path, folder)
    for path in (root / "x" / "JPEGImages").iterdir():
        shutil.move(path, root / ("train" if path.name.startswith("train") else "valid"))
    shutil.rmtree(root / "x")


def voc_flat(root):
    writers.voc(ONE, root / "x")
    for path in [*(root / "x" / "Annotations").iterdir(), *(root / "x" / "JPEGImages").iterdir()]:
        shutil.move(path, root)
    shutil.rmtree(root / "x")


def labelme(root):
    writers.labelme(BOTH, root)


def labelme_two_folders(root):
    writers.labelme(ONE, root / "x")
    for path in (root / "x" / "train").iterdir():
        folder = root / ("jsons" if path.suffix == ".json" else "images")
        folder.mkdir(exist_ok=True)
        shutil.move(path, folder)
    shutil.rmtree(root / "x")


def cvat(root):
    writers.cvat(BOTH, root)


def cvat_beside(root):
    writers.cvat(ONE, root)
    for path in (root / "images").iterdir():
        shutil.move(path, root)


def csv_roboflow(root):
    writers.csv_tensorflow(BOTH, root)


def csv_tensorflow(root):
    writers.csv_tensorflow(BOTH, root / "x")
    for split in ("train", "val"):
        shutil.move(root / "x" / split / "_annotations.csv", root / f"{split}_labels.csv")
        shutil.move(root / "x" / split, root / split)


def csv_retinanet(root):
    writers.csv_retinanet(BOTH, root)
    text(root / "classes.csv", "".join(f'"{name}",{at}\n' for at, name in enumerate(CLASSES)))


def csv_corners_and_sides(root):
    image(root / "a.jpg")
    text(root / "boxes.csv", "image,label,x,y,w,h\na.jpg,cat,10,20,30,40\n")


def open_images(root):
    writers.open_images(BOTH, root)


RECOGNISED: list[tuple[Callable[[Path], None], str, tuple[str, ...]]] = [
    (coco_one_json_beside, "COCO", ("train",)),
    (coco_one_json_images_folder, "COCO", ("train",)),
    (coco_cvat, "COCO", ("train",)),
    (coco_images_by_split, "COCO", ("train", "val")),
    (coco_label_studio, "COCO", ("train",)),
    (coco_lvis, "COCO", ("train",)),
    (coco_official, "COCO", ("train", "val")),
    (lambda root: writers.roboflow_coco(BOTH, root), "COCO", ("train", "val")),
    (yolo, "YOLO", ("train", "val")),
    (yolo_roboflow, "YOLO", ("train", "val")),
    (yolo_roboflow_moved, "YOLO", ("train", "val")),
    (yolo_lists, "YOLO", ("train", "val")),
    (yolo_without_yaml, "YOLO", ("train", "val")),
    (yolo_flat, "YOLO", ("train",)),
    (yolo_darknet, "YOLO", ("train",)),
    (voc, "Pascal VOC", ("train", "val")),
    (voc_below_vocdevkit, "Pascal VOC", ("train", "val")),
    (voc_roboflow, "Pascal VOC", ("train", "val")),
    (voc_flat, "Pascal VOC", ("train",)),
    (labelme, "LabelMe", ("train", "val")),
    (labelme_two_folders, "LabelMe", ("train",)),
    (cvat, "CVAT for images", ("train", "val")),
    (cvat_beside, "CVAT for images", ("train",)),
    (csv_roboflow, "CSV of boxes", ("train", "val")),
    (csv_tensorflow, "CSV of boxes", ("train", "val")),
    (csv_retinanet, "CSV of boxes", ("train", "val")),
    (csv_corners_and_sides, "CSV of boxes", ("train",)),
    (open_images, "Open Images", ("train", "val")),
]


@pytest.mark.parametrize(("make", "form", "splits"), RECOGNISED, ids=lambda v: getattr(v, "__name__", None))
def test_recognised(make, form, splits, tmp_path):
    (root := tmp_path / "set").mkdir()
    make(root)
    data = open_data(root)
    assert (data.format, tuple(data.splits)) == (form, splits)
    names = [set(split.read().file_names) for split in data.splits.values()]
    assert all(split.read().has_annotations() for split in data.splits.values())
    assert len(set.union(*names)) == sum(map(len, names))


def nothing(root):
    text(root / "readme.md", "hello")


def images_alone(root):
    image(root / "a.jpg")
    text(root / "requirements.txt", "torch\n")


def an_archive(root):
    (root / "export.zip").write_bytes(b"PK\3\4")


def two_formats(root):
    voc(root)
    csv_roboflow(root)


def two_yamls(root):
    yolo(root)
    shutil.copy(root / "data.yaml", root / "other.yaml")


def two_jsons(root):
    write_images(ONE, root)
    for name in ("one", "two"):
        text(root / f"{name}_coco.json", json.dumps(coco_content(ONE)))


def via(root):
    image(root / "a.jpg")
    text(root / "via.json", json.dumps({"a.jpg1": {"filename": "a.jpg", "regions": [{"shape_attributes": {}}]}}))


def create_ml(root):
    image(root / "a.jpg")
    box = {"label": "cat", "coordinates": {"x": 1, "y": 2, "width": 3, "height": 4}}
    text(root / "_annotations.createml.json", json.dumps([{"image": "a.jpg", "annotations": [box]}]))


def label_studio(root):
    text(root / "project.json", json.dumps([{"id": 1, "annotations": [{"result": [{"from_name": "label"}]}]}]))


def supervisely(root):
    text(
        root / "ds" / "ann" / "a.jpg.json", json.dumps({"objects": [{"classTitle": "cat", "geometryType": "polygon"}]})
    )


def vott(root):
    text(root / "x-asset.json", json.dumps({"asset": {"name": "a.jpg"}, "regions": [], "assetState": 1}))


def cvat_video(root):
    text(root / "annotations.xml", '<annotations><track id="0" label="cat"></track></annotations>')


def dota(root):
    image(root / "images" / "a.jpg")
    text(root / "labelTxt" / "a.txt", "1.0 2.0 3.0 2.0 3.0 4.0 1.0 4.0 plane 0\n")


def csv_centres(root):
    image(root / "a.jpg")
    text(root / "a.csv", "image,class,cx,cy,w,h\na.jpg,cat,1,2,3,4\n")


def csv_shares(root):
    image(root / "a.jpg")
    text(root / "a.csv", "image,x1,y1,x2,y2,class\na.jpg,0.1,0.1,0.5,0.5,cat\n")


def voc_without_images(root):
    writers.voc(ONE, root)
    shutil.rmtree(root / "JPEGImages")


def yolo_labels_elsewhere(root):
    yolo(root)
    shutil.rmtree(root / "labels")


def detections(root):
    image(root / "a.jpg")
    text(root / "results.json", json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]))


REFUSED = [
    (nothing, "Looked for: COCO: a .json with images, annotations and categories; YOLO:"),
    (images_alone, "which has 1 .jpg, 1 .txt"),
    (an_archive, "Unpack export.zip first"),
    (two_formats, "annotations of 2 formats: Pascal VOC"),
    (two_yamls, "2 files describe YOLO sets"),
    (two_jsons, "2 COCO files may be the split 'train'"),
    (via, "VGG Image Annotator"),
    (create_ml, "CreateML"),
    (label_studio, "Label Studio's own JSON"),
    (supervisely, "Supervisely"),
    (vott, "VoTT"),
    (cvat_video, "CVAT for video"),
    (dota, "DOTA"),
    (csv_centres, "by their centres"),
    (csv_shares, "shares of the image's sides"),
    (voc_without_images, "there is no image"),
    (yolo_labels_elsewhere, "None of the 6 images of the split 'train' has a label file"),
    (detections, "COCO results"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED, ids=lambda v: getattr(v, "__name__", None))
def test_refused_in_a_sentence(make, sentence, tmp_path):
    (root := tmp_path / "set").mkdir()
    make(root)
    with pytest.raises(DataError) as refusal:
        open_data(root)
    assert sentence in str(refusal.value) and str(root) in str(refusal.value)


def test_a_file_chooses_among_formats(tmp_path):
    two_formats(tmp_path)
    assert open_data(tmp_path / "train" / "_annotations.csv").format == "CSV of boxes"
    assert open_data(tmp_path / "Annotations").format == "Pascal VOC"
    (other := tmp_path / "other").mkdir()
    two_yamls(other)
    assert list(open_data(other / "data.yaml").splits) == ["train", "val"]


@pytest.mark.parametrize("name", ["set.zip", "weights.pth", "notthere"])
def test_a_source_that_is_no_folder_and_no_annotation_file(name, tmp_path):
    if name != "notthere":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=name):
        open_data(tmp_path / name)
