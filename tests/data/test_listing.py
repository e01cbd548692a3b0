"""What is an image among the files of a folder: the same for all commands, and nothing is passed over in silence."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from se_det.analysis.gate_statistics import class_folders
from se_det.classification.data.dataset import ClassificationDataset
from se_det.classification.data.dataset_factory import open_image_dataset
from se_det.data import read_image
from se_det.data.images import FILES, readable_formats
from se_det.data.listing import image_suffixes, is_hidden, list_files
from se_det.errors import DataError
from se_det.inference.sources import find_sources

PIXELS = np.full((12, 16, 3), 90, np.uint8)
HIDDEN = (
    ".ipynb_checkpoints/a.jpg", "._a.jpg", "__MACOSX/a.jpg", "__MACOSX/._a.jpg", ".thumbnails/a.png", "@eaDir/a.jpg",
    ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png",
)  # fmt: skip


def put(path: Path, format: str = "JPEG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path, format)
    return path


def names_of(images: ClassificationDataset) -> list[str]:
    return [images.names[index] for index in range(len(images))]


def test_every_format_that_is_read_has_its_endings():
    known = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm",
             ".tga", ".ico", ".mpo"}  # fmt: skip
    assert known <= set(image_suffixes())
    assert ("AVIF" in readable_formats()) == (".avif" in image_suffixes())
    assert not {".eps", ".pdf", ".txt", ".json", ".xml", ".mp4"} & set(image_suffixes())


@pytest.mark.parametrize("ending", ["avif", "jfif", "JPE", "gif", "jp2", "WEBP", "Tif", "ppm", "bmp", "tga"])
def test_commands_find_what_the_reader_opens(tmp_path: Path, ending: str) -> None:
    format = {"jfif": "JPEG", "jpe": "JPEG", "jp2": "JPEG2000", "tif": "TIFF"}.get(ending.lower(), ending.upper())
    if format not in readable_formats():
        pytest.skip(f"Pillow is built without {format}")
    path = put(tmp_path / "images" / "ash" / f"a.{ending}", format)
    assert read_image(path).shape == (12, 16, 3)
    sources, failures = find_sources([str(tmp_path / "images")], tmp_path / "out")
    assert [s.path for s in sources] == [path] and not failures
    assert names_of(open_image_dataset(str(tmp_path / "images"))) == [f"ash/a.{ending}"]
    assert class_folders(tmp_path / "images") == {"ash": [path]}


def test_hidden_and_system_files_are_left_out_everywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    root = tmp_path / "images"
    put(root / "ash" / "a.jpg")
    for name in HIDDEN:
        put(root / "ash" / name)
        put(root / name)
    (root / "ash" / "notes.txt").write_text("x")
    put(root / "ash" / "b.heic")
    sources, _ = find_sources([str(root)], tmp_path / "out")
    assert [s.path for s in sources] == [root / "ash" / "a.jpg"]
    assert [s.path for s in find_sources([f"{root}/**/*.jpg"], tmp_path / "out")[0]] == [root / "ash" / "a.jpg"]
    assert names_of(open_image_dataset(str(root))) == ["ash/a.jpg"]
    assert class_folders(root) == {"ash": [root / "ash" / "a.jpg"]}
    told = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert len(told) == 2
    for text in told:
        assert "2 files of other kinds (1 .heic, 1 .txt)" in text and "hidden or system files" in text
        assert "pillow-heif" in text


def test_what_is_named_is_taken_wherever_it_lies(tmp_path: Path) -> None:
    path = put(tmp_path / ".cache" / "run" / ".a.jpg")
    assert [s.path for s in find_sources([str(path)], tmp_path / "out")[0]] == [path]
    other = put(tmp_path / ".cache" / "run" / "b.jpg")
    assert [s.path for s in find_sources([str(tmp_path / ".cache" / "run")], tmp_path / "out")[0]] == [other]


def test_hidden_members_of_shards_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("__MACOSX/1.jpg", "._1.jpg", "1.jpg"):
            file = io.BytesIO()
            Image.fromarray(PIXELS).save(file, "JPEG")
            for member, data in ((name, file.getvalue()), (f"{name[:-4]}.cls", b"0")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert names_of(open_image_dataset(str(tmp_path / "a.tar"))) == ["1.jpg"]


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    real = put(tmp_path / "store" / "0123")
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    (root / "a.jpg").symlink_to(real)
    (root / "sub" / "b.jpg").symlink_to("../../store/0123")
    (root / "elsewhere").symlink_to(put(tmp_path / "more" / "c.jpg").parent)
    (root / "sub" / "loop").symlink_to(root)
    (root / "itself").symlink_to(root / "itself")
    (root / "sub" / "above").symlink_to(tmp_path)
    put(tmp_path / "beside.jpg")
    names = [name.as_posix() for name in list_files(root).files]
    assert names == ["a.jpg", "elsewhere/c.jpg", "sub/b.jpg"]
    (root / "gone.jpg").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"gone\.jpg is not there"):
        read_image(root / next(n for n in list_files(root).files if n.name == "gone.jpg"))


def test_nothing_found_says_what_there_is(tmp_path: Path) -> None:
    put(tmp_path / "a.heic")
    (tmp_path / "b.txt").write_text("x")
    _, failures = find_sources([str(tmp_path)], tmp_path / "out")
    assert "It holds 2 files of other kinds (1 .heic, 1 .txt); HEIC images are read where" in failures[0]


def test_names() -> None:
    assert all(map(is_hidden, (".a", "._a.jpg", "Thumbs.db", "__MACOSX", "DESKTOP.INI")))
    assert not any(map(is_hidden, (".", "..", "a.jpg", "thumbs.png")))
    assert "EPS" not in FILES and os.sep not in "".join(image_suffixes())
