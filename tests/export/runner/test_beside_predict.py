"""`se-det export --runner --triton` of a detector: its folder writes what `se-det predict` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pycocotools import mask as coco_mask

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from se_det.cli.main import main

from ...serving.small_model import checkpoint, pictures


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, pictures, what `predict` makes of them, and the exported folders."""
    folder = tmp_path_factory.mktemp("case")
    weights = str(checkpoint(folder))
    pictures(folder / "photos")
    assert main(["predict", "--weights", weights, "--output", str(folder / "drawn"), str(folder / "photos")]) == 0
    words = ["--weights", weights, "--output", str(folder / "detector.onnx")]
    words += ["--runner", str(folder / "runner"), "--triton", str(folder / "models" / "small")]
    assert main(["export", *words]) == 0
    return folder


@pytest.mark.slow  # the export takes most of a minute
def test_the_runner_writes_what_predict_writes(place: Path) -> None:
    command = [sys.executable, "predict.py", str(place / "photos"), "--output", str(place / "out"), "--batch", "2"]
    subprocess.run(command, cwd=place / "runner", check=True, env={"PATH": "", "PYTHONPATH": ""}, timeout=300)
    own, theirs = (
        json.loads((place / folder / "detections.json").read_text(encoding="utf-8")) for folder in ("out", "drawn")
    )
    assert len(own) == len(theirs) > 25
    for entry, other in zip(own, theirs):
        for name in ("file_name", "image_id", "category_id"):
            assert entry[name] == other[name]
        assert entry["bbox"] == pytest.approx(other["bbox"], abs=1e-2)
        assert entry["score"] == pytest.approx(other["score"], abs=1e-4)
        masks = [entry["segmentation"], other["segmentation"]]
        assert masks[0]["size"] == masks[1]["size"]
        if coco_mask.area(masks[1]):
            assert coco_mask.iou(masks[:1], masks[1:], [False])[0, 0] > 0.99
        else:
            assert not coco_mask.area(masks[0])
    drawn = sorted(path.name for path in (place / "drawn").iterdir())
    assert sorted(path.name for path in (place / "out").iterdir()) == drawn


@pytest.mark.slow  # the export takes most of a minute
def test_the_model_of_triton_is_the_same(place: Path) -> None:
    model = (place / "detector.onnx").read_bytes()
    assert (place / "runner" / "model.onnx").read_bytes() == model
    assert (place / "models" / "small" / "1" / "model.onnx").read_bytes() == model
    config = (place / "models" / "small" / "config.pbtxt").read_text()
    assert 'name: "small"' in config and "dims: [ 20, 28, 28 ]" in config


@pytest.mark.parametrize("option", ["--runner", "--triton"])
@pytest.mark.parametrize(
    "words", [["--output", "a.pt2"], ["--output", "a.onnx", "--part", "backbone"]], ids=["pt2", "backbone"]
)
def test_what_the_folders_cannot_be_made_of_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, option: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path)
    assert main(["export", "--weights", "model_best.pth", *words, option, "folder"]) == 1
    assert f"{option} is made of a whole detector as ONNX" in capsys.readouterr().err
    assert not Path("folder").exists() and not Path(words[1]).exists()
