"""What a data set says that its author may not mean is told when it is read, before anything is trained."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from coco_files import CONTENT, write_json

from se_det.data import read_coco


def warnings_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, **marks: object) -> str:
    content = copy.deepcopy(CONTENT)
    for annotation in content["annotations"]:
        annotation.update(marks)
    caplog.clear()
    read_coco(write_json(tmp_path, content), tmp_path)
    return "\n".join(r.getMessage() for r in caplog.records if r.levelname == "WARNING")


def test_crowds_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = warnings_of(tmp_path, caplog, iscrowd=1)
    assert "are crowds, so nothing of it is learned" in text and "--uncrowd" in text


@pytest.mark.parametrize("mark", ["ignore", "difficult", "isGroupOf"])
def test_marks_like_crowds(tmp_path: Path, caplog: pytest.LogCaptureFixture, mark: str) -> None:
    assert f"annotations are marked '{mark}'" in warnings_of(tmp_path, caplog, **{mark: 1}, iscrowd=0)


def test_holes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outer, inner = [1, 1, 30, 1, 30, 30, 1, 30], [5, 5, 10, 5, 10, 10, 5, 10]
    content = copy.deepcopy(CONTENT)
    content["annotations"][0]["segmentation"] = [inner, outer]
    read_coco(write_json(tmp_path, content), tmp_path)
    assert "1 polygons lie inside another one of their annotation" in caplog.text


def test_a_plain_file_has_no_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert warnings_of(tmp_path, caplog, iscrowd=0) == ""
