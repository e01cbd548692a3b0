"""Damaged annotation files are read or refused in a sentence: no traceback, no hang, no memory beyond measure."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

import pytest

from se_det.data.formats import open_data
from se_det.errors import SeDetError
from tests.data.formats import writers
from tests.data.formats.writers import random_set


def yolo_without_names(samples: list[writers.Sample], root: Path) -> None:
    writers.yolo(samples, root)
    (root / "data.yaml").unlink()


def darknet(samples: list[writers.Sample], root: Path) -> None:
    yolo_without_names(samples, root)
    names = [str(path.relative_to(root)) for path in sorted((root / "images").rglob("*.*"))]
    for name, lines in (("train.txt", names), ("obj.names", writers.CLASSES)):
        (root / name).write_text("\n".join(lines), encoding="utf-8")
    (root / "obj.data").write_text("classes=3\ntrain=train.txt\nnames=obj.names\n")


FORMATS = {
    "yolo without names": (yolo_without_names, (".txt",)),
    "darknet": (darknet, ("train.txt", "obj.", ".data")),
    "yolo": (writers.yolo, (".txt", ".yaml")),
    "yolo polygons": (partial(writers.yolo, polygons=True), (".txt",)),
    "voc": (partial(writers.voc, masks=True), (".xml", ".txt", "SegmentationObject")),
    "labelme": (writers.labelme, (".json",)),
    "labelme mask": (partial(writers.labelme, shape="mask"), (".json",)),
    "cvat": (writers.cvat, (".xml",)),
    "cvat mask": (partial(writers.cvat, shape="mask"), (".xml",)),
    "csv tensorflow": (writers.csv_tensorflow, (".csv",)),
    "csv retinanet": (writers.csv_retinanet, (".csv",)),
    "open images": (writers.open_images, (".csv",)),
    "coco": (writers.coco, (".json",)),
    "coco rle": (partial(writers.coco, rle=True), (".json",)),
    "coco roboflow": (writers.roboflow_coco, (".json",)),
}
ODD = (
    b"nan", b"inf", b"-inf", b"1e999", b"-1", b"1e30", b"99999999999999999999", b"0", b"", b"null", b"true", b"[]",
    b"{}", b'"x"', b"\x00", b"\xff\xfe", b"1_0", b"0x10", "\u0665".encode(), b"..", b"/etc/passwd", b"../../x",
    b"a\\b", b"[[[[",
    b"\n", b",", b";", b"<", b">", b"&amp;", b"&x;", b"<!DOCTYPE x>", b'"', b"1.5", b"2", b"-0.05", b"1.05", b"1e-300",
)  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("originals")
    samples = random_set(11, masks=True, splits=("train", "val"))
    for name, (write, _) in FORMATS.items():
        (folder / name).mkdir()
        write(samples, folder / name)
    return {name: folder / name for name in FORMATS}


def damage(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        kind = rng.randrange(6)
        at = rng.randrange(len(data) + 1)
        if kind == 0:  # a number or a word is another
            starts = [i for i in range(1, len(data)) if data[i : i + 1].isalnum() and not data[i - 1 : i].isalnum()]
            if starts:
                at = rng.choice(starts)
                end = at
                while end < len(data) and (data[end : end + 1].isalnum() or data[end : end + 1] in (b".", b"-")):
                    end += 1
                data = data[:at] + rng.choice(ODD) + data[end:]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + rng.choice(ODD) + data[at:]
        elif kind == 3:  # a line or a piece is lost, or is used twice
            end = min(len(data), at + rng.randrange(1, 200))
            data = data[:at] + (data[at:end] * 2 if rng.random() < 0.5 else b"") + data[end:]
        elif kind == 4 and data:
            at = rng.randrange(len(data))
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        else:
            lines = data.splitlines(keepends=True)
            rng.shuffle(lines)
            data = b"".join(lines)
    return data


def try_damaged(name: str, original: Path, place: Path, seeds: range) -> tuple[int, int]:
    """How many damaged sets were read and how many refused; anything else is raised."""
    counts = [0, 0]
    shutil.copytree(original, place)
    files = [
        path for path in sorted(place.rglob("*"))
        if path.is_file() and any(end in str(path.relative_to(place)) for end in FORMATS[name][1])
    ]  # fmt: skip
    for seed in seeds:
        rng = random.Random(f"{name} {seed}")
        path = rng.choice(files)
        sound = path.read_bytes()
        path.write_bytes(damage(sound, rng))
        try:
            for split in open_data(place).splits.values():
                dataset = split.read()
                for i in range(len(dataset)):
                    dataset.annotations(i)
            counts[0] += 1
        except SeDetError as error:
            assert str(error).endswith((".", "?")) and "\n" not in str(error).strip(), str(error)
            counts[1] += 1
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}, {path.name}: {path.read_bytes()[:3000]!r}") from error
        path.write_bytes(sound)
    return counts[0], counts[1]


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name, originals, tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    read, refused = try_damaged(name, originals[name], tmp_path / "set", range(8))
    assert read + refused == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files(name, originals, tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    read, refused = try_damaged(name, originals[name], tmp_path / "set", range(1000, 1160))
    assert read and refused
