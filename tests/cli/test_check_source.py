"""`se-det check-data SRC`: every split of a data set in any format."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from se_det.cli.main import main
from se_det.data.formats import open_data
from tests.data.formats import writers
from tests.data.formats.writers import random_set


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))


def textured(folder):
    """Pictures of noise in place of even ones, so that no two are equal."""
    rng = np.random.default_rng(0)
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")):
        with Image.open(path) as image:
            size = image.size
        kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path, kind)


def yolo(tmp_path, *, splits=("train", "val")):
    (folder := tmp_path / "source").mkdir()
    writers.yolo(random_set(4, splits=splits), folder)
    textured(folder)
    return folder


def checked(tmp_path, *options):
    code = main(["check-data", *map(str, options), "--output", str(tmp_path / "r.json")])
    return code, json.loads((tmp_path / "r.json").read_text())


def kinds(report, severity="error"):
    return [f["kind"] for f in report["findings"] if f["severity"] == severity]


def test_every_split_is_checked(tmp_path, capsys):
    source = yolo(tmp_path)
    code, found = checked(tmp_path, source, "--histograms", tmp_path / "h.png")
    out = capsys.readouterr().out
    assert code == 0 and found["format"] == "YOLO" and list(found["splits"]) == ["train", "val"]
    opened = open_data(source)
    for name, report in found["splits"].items():
        assert report["images"] == report["images_decoded"] == opened.splits[name].images
        assert report["annotations"] == opened.splits[name].annotations
    assert f"{source} (train): 6 images" in out and f"{source} (val): 6 images" in out
    assert (tmp_path / "h.png").is_file()


def test_a_finding_names_the_file_that_its_annotation_stands_in(tmp_path, capsys):
    (source := tmp_path / "source").mkdir()
    writers.voc(random_set(4), source)
    textured(source)
    xml = next(path for path in sorted(source.rglob("*.xml")) if "<object>" in path.read_text(encoding="utf-8"))
    text = xml.read_text(encoding="utf-8")
    first = text[text.index("<object>") : text.index("</object>") + len("</object>")]
    xml.write_text(text.replace(first, first * 2), encoding="utf-8")
    code, found = checked(tmp_path, source)
    (twice,) = (f for f in found["splits"]["train"]["findings"] if f["kind"] == "annotation-twice")
    x, y = (first.split(f"<{tag}>")[-1].split("<")[0] for tag in ("xmax", "ymax"))
    assert code == 0 and twice["source"] == str(xml)
    place = next(line for line in capsys.readouterr().out.splitlines() if "object at [" in line)
    assert place.strip().startswith(str(xml)) and f", {x}, {y}]: " in place  # of the object itself, not of its part
    image = next(path for path in source.rglob("*.*") if path.stem == xml.stem and path != xml)
    image.write_bytes(image.read_bytes()[:-200])
    code, found = checked(tmp_path, source)
    (broken,) = (f for f in found["splits"]["train"]["findings"] if f["severity"] == "error")
    assert code == 1 and broken["kind"] == "truncated-image"
    assert broken["source"] == str(xml) and broken["file_name"].endswith(image.name)


def test_splits_are_compared_and_the_copy_is_clean(tmp_path, capsys):
    """What stands in both is taken from the earlier split; the copy opens as a data set again."""
    source = yolo(tmp_path, splits=("train", "val", "test"))
    images = {path.name: path for path in (source / "images").rglob("*.*")}
    shutil.copy(images["val-plain.jpg"], source / "images" / "train" / "copy.jpg")
    shutil.copy(images["test-plain.jpg"], source / "images" / "val" / "copy.jpg")
    for split, name in (("train", "val-plain"), ("val", "test-plain")):
        label = source / "labels" / name.split("-")[0] / f"{name}.txt"
        shutil.copy(label, source / "labels" / split / "copy.txt")
    code, found = checked(tmp_path, source, "--fix", tmp_path / "out")
    assert code == 1
    assert [kinds(report) for report in found["splits"].values()] == [["split-duplicate"], ["split-duplicate"], []]
    assert f"of {source} (val)" in capsys.readouterr().out
    changes = json.loads((tmp_path / "out" / "train" / "changes.json").read_text())
    assert [change["source"] for change in changes] == [str(source / "labels" / "train" / "copy.txt")]
    again = open_data(tmp_path / "out")
    assert {name: split.images for name, split in again.splits.items()} == {"train": 6, "val": 6, "test": 6}
    assert checked(tmp_path, tmp_path / "out")[0] == 0


def test_coco_is_checked_as_it_is(tmp_path, capsys):
    """With the faults that reading would refuse or leave out, and the places in the user's own JSON."""
    root = tmp_path / "set"
    samples = random_set(5, splits=("train", "val"))
    writers.coco(samples, root)
    textured(root)
    assert checked(tmp_path, root)[0] == 0
    path = next(p for p in root.rglob("*.json") if "val" in str(p))
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] = 0
    content["annotations"][1]["image_id"] = 999
    path.write_text(json.dumps(content))
    capsys.readouterr()
    code, found = checked(tmp_path, root)
    assert code == 1 and kinds(found["splits"]["val"]) == ["dangling-image", "box-empty"]
    assert found["splits"]["val"]["json"] == str(path) and not kinds(found["splits"]["train"])
    both = main(["check-data", "--json", str(path), "--images", found["splits"]["val"]["images_folder"]])
    assert both == 1 and found["splits"]["val"]["images_decoded"] == 6
    assert checked(tmp_path, path)[0] == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("SRC", "--json", "a.json"), "--json names other"),
        (("SRC", "--against", "a.json"), "--against names other"),
        (("--json", "a.json"), "--images D too"),
        ((), "There is nothing to check"),
        (("SRC", "--fix", "SRC/out"), "lie in one another"),
        (("nowhere",), "no file or folder"),
        (("SRC", "--uncrowd"), "--fix OUT"),
    ],
)
def test_refusals(tmp_path, capsys, options, named):
    source = yolo(tmp_path)
    assert main(["check-data", *(o.replace("SRC", str(source)) for o in options)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and named in message and len(message.strip().splitlines()) == 1
    assert not (source / "out").exists()


def test_a_fault_of_another_format_is_one_sentence(tmp_path, capsys):
    source = yolo(tmp_path)
    next((source / "labels" / "val").glob("*.txt")).write_text("9 0.5 0.5 0.1 0.1\n")
    assert main(["check-data", str(source)]) == 1
    assert "line 1: the class is 9" in capsys.readouterr().err
