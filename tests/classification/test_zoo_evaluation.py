"""The zoo's classifiers on disk, evaluated beside what was reported of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from se_det.backbones import create_model
from se_det.classification.data.dataset_factory import open_image_dataset
from se_det.classification.preprocessing import Preprocessing
from se_det.cli.main import run_command
from se_det.data import read_image
from se_det.weights import zoo
from se_det.weights.download import cache_path

URL = "https://example.org/{}.pth"


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.nn.Module]:
    """Two entries on disk, one of which has its classes in an order that nobody knows, and one that is not there."""
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = create_model("resnet18").eval()
    head = {"source": "https://example.org", "license": "none",
            "input": {"format": "BGR", "mean": [100.0, 110.0, 120.0], "std": [50.0, 50.0, 60.0]}}  # fmt: skip
    reports = [{"top1": 70.0, "top5": 90.0, "crop": 64, "source": "the paper"},
               {"top1": 69.5, "top5": 89.0, "crop": 64, "source": "a port"}]  # fmt: skip
    listed = {
        f"resnet18.{name}": {
            "url": URL.format(name),
            "architecture": "resnet18",
            "family": "se_det",
            "reports": reports,
        }
        for name in ("here", "absent")
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({**head, "entries": listed}))
    monkeypatch.setattr(zoo, "_entries", lambda: zoo.read_entries(tmp_path))
    path = cache_path(URL.format("here"))
    path.parent.mkdir(parents=True)
    torch.save(model.state_dict(), path)
    return model


def test_errors_stand_beside_what_was_reported(entries, pictures: Path, tmp_path: Path):
    model, listed = entries, tmp_path / "list.txt"
    images = [p for p in sorted((pictures / "val").rglob("*")) if p.is_file()]
    view = Preprocessing(size=64, format="BGR", mean=(100.0, 110.0, 120.0), std=(50.0, 50.0, 60.0))
    with torch.no_grad():
        pixels = [torch.from_numpy(read_image(p, format="RGB").copy()).permute(2, 0, 1) for p in images]
        best = [int(model(view(x)).argmax()) for x in pixels]
    labels = [b if i % 3 else (b + 1) % 1000 for i, b in enumerate(best)]  # every third is wrong
    listed.write_text("".join(f"{p} {label}\n" for p, label in zip(images, labels, strict=True)))
    command = ["--evaluate", "--zoo", "--test_data_path", str(listed), "--root", "/", "--output", str(tmp_path / "out"),
               "-j", "0", "TEST.IMS_PER_BATCH", "4"]  # fmt: skip
    assert run_command("pretrain", command) == 0
    [row] = json.loads((tmp_path / "out" / "zoo.json").read_text())
    assert (row["name"], row["images"]) == ("resnet18.here", len(images))
    assert row["top1_error"] == pytest.approx(100 * len(range(0, len(images), 3)) / len(images))
    assert [p["top1_error"] for p in row["published"]] == [30.0, 30.5]


def test_no_weights_and_other_classes_are_refused(entries, pictures: Path, capsys: pytest.CaptureFixture):
    assert open_image_dataset(str(pictures / "val")).class_names
    base = ["--evaluate", "--test_data_path", str(pictures / "val")]
    assert run_command("pretrain", [*base, "--zoo", "vgg*"]) == 1
    assert "matches no weights on this machine" in capsys.readouterr().err
    assert run_command("pretrain", [*base, "--zoo"]) == 1
    assert "1000" in capsys.readouterr().err
    assert run_command("pretrain", ["--zoo", "--test_data_path", str(pictures / "val")]) == 1
    assert "--evaluate" in capsys.readouterr().err
