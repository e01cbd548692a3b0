"""Data sets by Detectron2's names and in its layouts: COCO panoptic, LVIS, VOC, Cityscapes; and one's own panoptic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_tools

from se_det.data import DATASETS, dataset_paths, open_dataset
from se_det.data.named.cityscapes import LABELS
from se_det.data.named.coco_panoptic import read_panoptic
from se_det.data.pixel_labels import panoptic_pixels
from se_det.errors import DataError

CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1}, {"id": 3, "name": "car", "isthing": 1},
    {"id": 119, "name": "flower", "isthing": 0}, {"id": 92, "name": "banner", "isthing": 0},
]  # fmt: skip


@pytest.fixture(autouse=True)
def root(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    return tmp_path


def photo(path: Path, size=(20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)


def segments() -> np.ndarray:
    """Rows 0-4 void, a person left, a crowd of cars right, banner and flower below."""
    numbers = np.zeros((20, 30), np.int64)
    numbers[5:12, :10], numbers[5:12, 10:] = 70000, 300
    numbers[12:16], numbers[16:] = 5, 9
    return numbers


def coco_panoptic(root: Path, *, stuff: bool) -> None:
    place = root / "coco"
    for name in ("000000000139", "000000000285"):
        photo(place / "val2017" / f"{name}.jpg")
        for folder in ("panoptic_val2017", "panoptic_stuff_val2017") if stuff else ("panoptic_val2017",):
            (place / folder).mkdir(exist_ok=True)
        Image.fromarray(panoptic_pixels(segments())).save(place / "panoptic_val2017" / f"{name}.png")
        if stuff:
            Image.fromarray(stuff_labels()).save(place / "panoptic_stuff_val2017" / f"{name}.png")
    infos = [
        {"id": 70000, "category_id": 1, "iscrowd": 0, "area": 70},
        {"id": 300, "category_id": 3, "iscrowd": 1, "area": 140},
        {"id": 5, "category_id": 92, "iscrowd": 0, "area": 120},
        {"id": 9, "category_id": 119, "iscrowd": 0, "area": 120},
    ]  # fmt: skip
    images = [
        {"id": n, "file_name": f"{n:012d}.jpg", "height": 20, "width": 30} for n in (139, 285)
    ]  # fmt: skip
    annotations = [{"image_id": n, "file_name": f"{n:012d}.png", "segments_info": infos} for n in (139, 285)]
    (place / "annotations").mkdir()
    (place / "annotations" / "panoptic_val2017.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES})
    )
    things = [{k: c[k] for k in ("id", "name")} for c in CATEGORIES if c["isthing"]]
    boxes = [{"id": 1, "image_id": 139, "category_id": 1, "bbox": [0, 5, 10, 7], "area": 70, "iscrowd": 0}]
    (place / "annotations" / "instances_val2017.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": things})
    )


def stuff_labels() -> np.ndarray:
    """As prepare_panoptic_fpn.py makes them: things 0, banner (92) 1, flower (119) 2, void 255."""
    labels = np.full((20, 30), 255, np.uint8)
    labels[5:12], labels[12:16], labels[16:] = 0, 1, 2
    return labels


@pytest.mark.parametrize("stuff", [True, False], ids=["prepared", "from the panoptic PNGs"])
def test_coco_panoptic(root, stuff):
    coco_panoptic(root, stuff=stuff)
    dataset = open_dataset("coco_2017_val_panoptic_separated")
    assert dataset.pixel_labels.names == ("things", "banner", "flower")
    assert dataset.pixel_labels.category_ids == (0, 92, 119)
    assert dataset.category_names == ("person", "car") and dataset.num_annotations() == 1
    assert np.array_equal(dataset.labels(0), stuff_labels())
    assert dataset.panoptic.load().position(285, "x.jpg") == 1
    dataset.check_files_exist()
    alone = open_dataset("coco_2017_val_panoptic_stuffonly")
    assert [alone.image(i).id for i in range(2)] == ["000000000139", "000000000285"]
    assert np.array_equal(alone.labels(1), stuff_labels()) and alone.category_ids == ()


def test_ones_own_panoptic_data_has_the_instances_of_its_pngs(root):
    coco_panoptic(root, stuff=False)
    place = root / "coco"
    dataset = read_panoptic(
        place / "annotations" / "panoptic_val2017.json", place / "panoptic_val2017", place / "val2017", None
    )
    found = dataset.annotations(0)
    assert found.boxes.tolist() == [[0, 5, 10, 12], [10, 5, 30, 12]] and found.crowd.tolist() == [False, True]
    assert dataset.num_rle_annotations() == 2  # the crowds are not counted
    assert np.array_equal(dataset.labels(1), stuff_labels())


def test_faults_of_panoptic_files_are_sentences(root):
    coco_panoptic(root, stuff=False)
    path = root / "coco" / "annotations" / "panoptic_val2017.json"
    content = json.loads(path.read_text())
    truth = open_dataset("coco_2017_val_panoptic_separated")
    del content["annotations"][0]["segments_info"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="segments_info"):
        truth.panoptic.load()
    content["categories"] = [{"id": 1, "name": "person"}]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="isthing"):
        open_dataset("coco_2017_val_panoptic_separated")
    path.unlink()
    with pytest.raises(DataError, match="is not there"):
        open_dataset("coco_2017_val_panoptic_stuffonly")


def test_lvis_finds_images_by_their_url(root):
    photo(root / "coco" / "train2017" / "000000000009.jpg")
    image = {
        "id": 9, "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg", "height": 20, "width": 30,
        "neg_category_ids": [], "not_exhaustive_category_ids": [],
    }  # fmt: skip
    annotation = {"id": 1, "image_id": 9, "category_id": 2, "bbox": [1, 2, 5, 6], "area": 30,
                  "segmentation": [[1, 2, 6, 2, 6, 8]]}  # fmt: skip
    categories = [{"id": n, "name": f"c{n}", "frequency": "r"} for n in (1, 2)]
    (root / "lvis").mkdir()
    (root / "lvis" / "lvis_v1_val.json").write_text(
        json.dumps({"images": [image], "annotations": [annotation], "categories": categories})
    )
    dataset = open_dataset("lvis_v1_val")
    dataset.check_files_exist()
    assert dataset.file_names == ["train2017/000000000009.jpg"] and dataset.evaluators == {"instances": "lvis"}
    assert dataset.annotations(0).classes.tolist() == [1]
    del image["coco_url"]
    (root / "lvis" / "lvis_v1_val.json").write_text(
        json.dumps({"images": [image], "annotations": [annotation], "categories": categories})
    )
    with pytest.raises(DataError, match="coco_url"):
        open_dataset("lvis_v1_val")


def test_voc_counts_pixels_from_one_and_keeps_the_difficult(root):
    place = root / "VOC2012"
    photo(place / "JPEGImages" / "2008_000001.jpg")
    for name in ("Annotations", "ImageSets/Main"):
        (place / name).mkdir(parents=True)
    (place / "ImageSets" / "Main" / "val.txt").write_text("2008_000001\n")
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>"
        "<xmax>30</xmax><ymax>20</ymax></bndbox></object>"
        for name, difficult in (("tvmonitor", 0), ("aeroplane", 1))
    )
    xml = place / "Annotations" / "2008_000001.xml"
    xml.write_text(f"<annotation><size><width>30</width><height>20</height></size>{objects}</annotation>")
    dataset = open_dataset("voc_2012_val")
    found = dataset.annotations(0)
    assert found.boxes.tolist() == [[0, 1, 30, 20]] * 2 and found.classes.tolist() == [19, 0]
    assert len(dataset.category_names) == 20 and dataset.evaluators == {"instances": "pascal_voc"}
    content = json.loads(dataset.json_path.read_text())
    assert [a["voc_difficult"] for a in content["annotations"]] == [0, 1] and content["info"]["voc_year"] == 2012
    xml.write_text(xml.read_text().replace("tvmonitor", "tv"))
    with pytest.raises(DataError, match="'tv' of an object is none of VOC's"):
        open_dataset("voc_2012_val")


def test_cityscapes(root):
    images, truth = root / "cityscapes/leftImg8bit/val/ulm", root / "cityscapes/gtFine/val/ulm"
    photo(images / "ulm_000000_000019_leftImg8bit.png")
    truth.mkdir(parents=True)
    labels = np.full((20, 30), 7, np.uint8)  # road
    labels[:5], labels[5:9, :9], labels[5:9, 20:] = 4, 26, 25  # static, a car, a group of riders
    numbers = labels.astype(np.uint16)
    numbers[5:9, :9] = 26003
    Image.fromarray(labels).save(truth / "ulm_000000_000019_gtFine_labelIds.png")
    Image.fromarray(numbers).save(truth / "ulm_000000_000019_gtFine_instanceIds.png")
    dataset = open_dataset("cityscapes_fine_sem_seg_val")
    dataset.check_files_exist()
    assert [dataset.labels(0)[y, x] for y, x in ((0, 0), (5, 0), (5, 25), (15, 5))] == [255, 13, 12, 0]
    assert dataset.pixel_labels.names[13] == "car" and len(LABELS) == 19
    instances = open_dataset("cityscapes_fine_instance_seg_val")
    found = instances.annotations(0)
    assert instances.category_names[2] == "car" and found.boxes.tolist() == [[20, 5, 30, 9], [0, 5, 9, 9]]
    assert found.crowd.tolist() == [True, False] and found.classes.tolist() == [1, 2]
    mask = mask_tools.decode(json.loads(instances.json_path.read_text())["annotations"][1]["segmentation"])
    assert np.array_equal(mask > 0, labels == 26)
    (truth / "ulm_000000_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(DataError, match="gtFine_trainvaltest"):
        open_dataset("cityscapes_fine_instance_seg_val")


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if entry.open is not None])
def test_what_is_not_there_is_a_sentence(name):
    json_path, images = dataset_paths(name)
    with pytest.raises(DataError, match="is not there"):
        open_dataset(name)
    assert not json_path.exists() and not images.exists()
