"""`se-det import`."""

from __future__ import annotations

import json
import os

import pytest

from se_det.cli.main import main
from se_det.data.formats import open_data
from tests.data.formats import writers
from tests.data.formats.writers import random_set


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    (folder := tmp_path / "source").mkdir()
    writers.yolo(random_set(4, splits=("train", "val")), folder)
    return folder


def content(data):
    """What the splits hold, by the name of the image's file."""
    found = {}
    for split, opened in data.splits.items():
        dataset = opened.read()
        for i, name in enumerate(dataset.file_names):
            annotations = dataset.annotations(i)
            names = [dataset.category_names[c] for c in annotations.classes]
            found[split, name.rsplit("/", 1)[-1]] = names, annotations.boxes.tolist()
    return found


@pytest.mark.parametrize("images", ["link", "copy"])
def test_imported_data_are_the_same_as_coco(images, source, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["import", str(source), str(out), "--images", images]) == 0
    printed = capsys.readouterr().out
    assert "YOLO (data.yaml)" in printed and "train: 6 images" in printed and "3 classes: cat" in printed
    imported = open_data(out)
    assert imported.format == "COCO" and content(imported) == content(open_data(source))
    path = next(path for path in (source / "images" / "train").iterdir())
    copies = list(out.rglob(path.name))
    assert len(copies) == 1 and copies[0].read_bytes() == path.read_bytes()
    assert (os.stat(copies[0]).st_ino == os.stat(path).st_ino) == (images == "link")


def test_by_reference_the_images_stay(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["import", str(source), str(out)]) == 0
    written = json.loads((out / "annotations" / "instances_val.json").read_text())
    assert len(written["images"]) == 6 and sorted(path.name for path in out.iterdir()) == ["annotations"]
    assert f"--json {out / 'annotations' / 'instances_val.json'} --images {source}" in capsys.readouterr().out


def test_nothing_is_written_over(source, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert main(["import", str(source), str(out)]) == 1
    assert "is there already" in capsys.readouterr().err and os.listdir(out) == ["mine.txt"]
    assert main(["import", str(source), str(source / "out")]) == 1
    assert "lie in one another" in capsys.readouterr().err and not (source / "out").exists()


def test_a_failure_leaves_nothing_behind(source, tmp_path, capsys):
    next((source / "labels" / "val").glob("*.txt")).write_text("9 0.5 0.5 0.1 0.1\n")
    before = sorted(os.listdir(tmp_path))
    assert main(["import", str(source), str(tmp_path / "out")]) == 1
    assert "line 1: the class is 9" in capsys.readouterr().err and sorted(os.listdir(tmp_path)) == before
