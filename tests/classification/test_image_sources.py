"""Class folders, lists and shards: the same images however they are stored, and what is refused."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from picture_sets import CLASSES, class_folders
from PIL import Image

from se_det.classification.data.dataset import ClassificationDataset, read_class_names
from se_det.classification.data.dataset_factory import open_image_dataset
from se_det.classification.data.loader import Batch, TrainPipeline, test_loader, train_loader
from se_det.classification.data.transforms import ImageSizes, RandomCrop, augmentation
from se_det.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def make_shards():
    spec = importlib.util.spec_from_file_location("make_shards", ROOT / "datasets" / "make_shards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_shards


@pytest.fixture(scope="session")
def stored(pictures: Path, tmp_path_factory: pytest.TempPathFactory, make_shards) -> dict[str, ClassificationDataset]:
    out = tmp_path_factory.mktemp("stored")
    assert len(make_shards(pictures / "train", out, name="train", shard_images=7)) == 3
    classes = read_class_names(str(out / "classes.txt"))
    return {
        "folders": open_image_dataset(str(pictures / "train")),
        "list": open_image_dataset(str(out / "train.txt"), root=str(pictures / "train"), classes=classes),
        "shards": open_image_dataset(str(out / "train-{000000..000002}.tar"), classes=classes),
        "pattern": open_image_dataset(str(out / "train-*.tar"), classes=classes),
        "folder of shards": open_image_dataset(str(out), classes=classes),
    }


def batches_of(images: ClassificationDataset, count: int, *, workers: int = 0, **how) -> list[Batch]:
    view = TrainPipeline(
        seed=5, ims_per_batch=6, steps_per_epoch=len(images) / 6, sizes=ImageSizes(32, ((1.0, 40),)),
        crop=RandomCrop(scale=(0.2, 1.0), ratio=(0.75, 1.33)),
        augment=augmentation(flip=0.5, operations=1, erasing=0.5, fill=(124, 116, 104)),
    )  # fmt: skip
    batches = iter(train_loader(images, view, num_workers=workers, **how))
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def assert_same_batches(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.numbers, other.numbers)


def test_the_three_ways_give_identical_batches(stored: dict[str, ClassificationDataset]) -> None:
    expected = batches_of(stored["folders"], 7)
    assert [tuple(b.images.shape[-2:]) for b in expected] == [(32, 32)] * 3 + [(40, 40)] * 4
    assert sorted(name for batch in expected[:3] for name in batch.names) == sorted(
        f"{c}/{n}.jpg" for c in CLASSES for n in range(6)
    )
    for name, images in stored.items():
        assert images.class_names == list(CLASSES), name
        assert_same_batches(batches_of(images, 7), expected)
    assert_same_batches(batches_of(pickle.loads(pickle.dumps(stored["shards"])), 7), expected)
    assert_same_batches(batches_of(stored["shards"], 7, workers=2), expected)
    assert_same_batches(batches_of(stored["list"], 3, start=4), expected[4:])


def test_processes_and_parts_share_a_step(stored: dict[str, ClassificationDataset]) -> None:
    whole = batches_of(stored["folders"], 2)
    ranks = [batches_of(stored["folders"], 2, rank=r, world_size=2) for r in range(2)]
    parts = batches_of(stored["folders"], 6, accumulate=3)
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([ranks[r][step].images for r in range(2)]), batch.images)
        assert torch.equal(torch.cat([p.images for p in parts[3 * step : 3 * step + 3]]), batch.images)


def test_evaluation_takes_every_image_once_over_the_processes(stored: dict[str, ClassificationDataset]) -> None:
    seen = []
    for rank in range(4):
        loader = test_loader(
            stored["shards"], size=32, crop_ratio=0.875, batch_size=4, rank=rank, world_size=4, num_workers=rank % 2
        )
        batches = list(loader)
        assert len(loader) == len(batches)
        seen += [number for batch in batches for number in batch.numbers.tolist()]
    assert seen == list(range(18))


@pytest.mark.shared_data
def test_real_images_in_three_ways(shared_data: Path, tmp_path: Path, make_shards) -> None:
    root = shared_data / "imagenette_mini" / "val"
    make_shards(root, tmp_path, name="val", shard_images=64)
    folders = open_image_dataset(str(root))
    assert len(folders) == 200
    assert folders.counts().tolist() == [20] * 10
    expected = batches_of(folders, 4)
    for path, how in (("val.txt", {"root": str(root)}), ("val-*.tar", {})):
        images = open_image_dataset(str(tmp_path / path), classes=folders.class_names, **how)
        assert_same_batches(batches_of(images, 4), expected)


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(match: str, path: Path | str, **how) -> None:
    with pytest.raises(DataError, match=match):
        open_image_dataset(str(path), **how)


def test_folders_are_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "train", per_class=1)
    refused("There is nothing at .*trian.*Did you mean 'train'", tmp_path / "trian")
    (root / "birch" / "0.jpg").rename(root / "birch" / "notes.md")
    refused(r"class folder .*birch has no images .* It holds 1 file of other kinds \(1 .md\)", root)
    (root / "birch" / "deeper").mkdir()
    (root / "birch" / "notes.md").rename(root / "birch" / "deeper" / "0.JPG")
    assert open_image_dataset(str(root)).names[1] == "birch/deeper/0.JPG"
    refused("no class folders", root / "ash")
    refused("cedar is a folder of none of the 3 classes", root, classes=["ash", "birch", "ceder"])
    refused("has 3 class folders, and MODEL.NUM_CLASSES is 4", root, num_classes=4)
    assert open_image_dataset(str(root), classes=["birch", "elm", "cedar", "ash"]).labels.tolist() == [3, 0, 2]


LINES = (
    ("a.jpg 0\nb.jpg\n", "list.txt, line 2: 'b.jpg' has no label"),
    ("a.jpg 0\n\nb.jpg cat\n", "line 3: the label 'cat' of 'b.jpg' is no number"),
    ("a.jpg -1\n", "line 1: the label '-1'"),
    ("a.jpg 1.0\n", "line 1: the label '1.0'"),
    ("imagename label\na.jpg 3\n", "line 2: the label 3 of 'a.jpg' is out of range: there are 3 classes"),
    ("a.jpg 99999999999999999999999\n", "line 1: the label 9+ of 'a.jpg' is out of range"),
    ("../a.jpg 0\n", r"line 1: '../a.jpg' leads out of the root"),
    ("/etc/passwd 0\n", "line 1: '/etc/passwd' leads out of the root"),
    ("imagename label\n", "There are no images in .*list.txt"),
    ("", "There are no images in .*list.txt"),
    ("a.jpg 0\nimagename label\n", "line 2: the label 'label'"),
)


@pytest.mark.parametrize(("text", "match"), LINES)
def test_lists_are_refused_by_file_and_line(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    refused(match, tmp_path / "list.txt", num_classes=3)


def test_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        "\ufeffimagename label\r\nmy photo.jpg 1\r\n\r\nsub/b.png\t0\r\n", encoding="utf-8"
    )
    images = open_image_dataset(str(tmp_path / "list.txt"))
    assert [images.names[i] for i in range(2)] == ["my photo.jpg", "sub/b.png"]
    assert images.labels.tolist() == [1, 0]
    assert images.class_names == ["0", "1"]
    with pytest.raises(DataError, match=r"The image .*my photo.jpg cannot be read: No such file"):
        images.read(0)
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    refused("no UTF-8 text", tmp_path / "list.txt")
    refused("The root .*nowhere of the list .* is no folder", tmp_path / "list.txt", root=str(tmp_path / "nowhere"))


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "train", per_class=1)
    (root / "ash" / "0.jpg").unlink()
    os.mkfifo(root / "ash" / "0.jpg")
    with pytest.raises(DataError, match="ash/0.jpg cannot be read: it is no file"):
        open_image_dataset(str(root)).read(0)
    os.mkfifo(tmp_path / "pipe.tar")
    for function in (read_class_names, open_image_dataset, lambda path: open_image_dataset(str(tmp_path / "*.tar"))):
        with pytest.raises(DataError, match=r"pipe\.tar"):
            function(str(tmp_path / "pipe.tar"))


def test_class_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match="names 'a' twice"):
        read_class_names(str(tmp_path / "classes.txt"))
    with pytest.raises(DataError, match="cannot be read"):
        read_class_names(str(tmp_path / "none.txt"))


def jpeg() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "JPEG")
    return data.getvalue()


def shard(path: Path, members: list[tuple], **how) -> Path:
    """Members are (name, bytes), or (name, bytes, changes of the header)."""
    with tarfile.open(path, "w", **how) as tar:
        for name, data, *changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in (changes[0] if changes else {}).items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return path


GOOD = [("a/1.jpg", jpeg()), ("a/1.cls", b"2\n")]
HOSTILE = (
    ([("a/1.jpg", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}), GOOD[1]], "a/1.jpg is a link"),
    ([("a/1.jpg", b"", {"type": tarfile.LNKTYPE, "linkname": "a/0.jpg"}), GOOD[1]], "a/1.jpg is a link"),
    ([("a/1.jpg", b"", {"type": tarfile.CHRTYPE}), GOOD[1]], "a/1.jpg is no file"),
    ([("../1.jpg", jpeg()), ("../1.cls", b"0")], r"the member ../1.jpg leads out of the shard"),
    ([("/1.jpg", jpeg()), ("/1.cls", b"0")], "the member /1.jpg leads out of the shard"),
    ([GOOD[0]], "the image a/1.jpg has no label: there is no member a/1.cls"),
    ([GOOD[1]], "a/1.cls is a label without an image"),
    ([*GOOD, GOOD[0]], "a/1.jpg is there twice"),
    ([*GOOD, ("a/1.png", jpeg())], "two images have the key 'a/1'"),
    ([GOOD[0], ("a/1.cls", b"cat")], "the label b'cat' in a/1.cls is no number"),
    ([GOOD[0], ("a/1.cls", b"3")], "the label 3 in a/1.cls is out of range: there are 3 classes"),
    ([GOOD[0], ("a/1.cls", b"1" * 600)], "a/1.cls has 600 bytes: that is too much"),
    ([("readme.md", b"x")], "There are no images in"),
)


@pytest.mark.parametrize(("members", "match"), HOSTILE)
def test_hostile_shards_are_refused(tmp_path: Path, members: list, match: str) -> None:
    refused(match, shard(tmp_path / "x.tar", members), num_classes=3)


def test_shards_are_read(tmp_path: Path) -> None:
    long = "folder/" * 30 + "name.with.dots"  # beyond what a plain header holds
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        members = [*GOOD, ("a/1.json", b"{}"), ("a/2.cls", b"0"), ("a/2.JPEG", b"x" * 700), (f"{long}.png", b"yy"),
                   ("folder/" * 30 + "name.cls", b"1")]  # fmt: skip
        members[-2] = ("folder/" * 30 + "name.png", b"yy")
        images = open_image_dataset(str(shard(tmp_path / "x.tar", members, format=form)))
        assert [images.names[i] for i in range(3)] == ["a/1.jpg", "a/2.JPEG", "folder/" * 30 + "name.png"]
        assert images.labels.tolist() == [2, 0, 1]
        assert [images.read(i) for i in range(3)] == [jpeg(), b"x" * 700, b"yy"]


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    whole = shard(tmp_path / "x.tar", [*GOOD, ("b.jpg", b"z" * 2000), ("b.cls", b"1")]).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for cut in (100, 700, end - 3000, end - 700, end - 512, end, end + 100):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        refused("cut.tar", tmp_path / "cut.tar")
    broken = bytearray(whole)
    start = broken.index(b"b.jpg")
    broken[start + 148 : start + 156] = b"99999999"  # the header's checksum
    (tmp_path / "broken.tar").write_bytes(broken)
    refused("damaged or cut short", tmp_path / "broken.tar")
    (tmp_path / "x.tar.gz").write_bytes(b"")
    refused("compressed", tmp_path / "x.tar.gz")
    refused("There is no shard .*x-2.tar", tmp_path / "x-{2..3}.tar")
    refused("no root", tmp_path / "x.tar", root="/data")
    images = open_image_dataset(str(tmp_path / "x.tar"))
    os.truncate(tmp_path / "x.tar", 600)
    with pytest.raises(DataError, match="has become shorter"):
        images.read(1)
