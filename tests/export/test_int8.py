"""Which layers go back to float32, and that what is quantised is what has weights."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from se_det.cli.main import main
from se_det.errors import CheckpointError, ConfigError, DataError, ExportError
from se_det.evaluation.figures import figures
from se_det.export import Exportable, write
from se_det.export.int8 import QUANTISERS, Quantised, detectors, quantise
from se_det.export.int8.cost import change, check_judges, loss
from se_det.export.int8.detectors import write_int8
from se_det.export.writing import check_place
from se_det.files import replace_together
from se_det.inference.runtimes import METADATA_KEY, open_runtime

from .cases import ExportCase, evaluated
from .test_export import needs_onnx

BEFORE = {"bbox": {"AP": 40.0}, "segm": {"AP": 30.0}}
LAYERS = ["res2.0.conv1.weight", "res2.0.gate.fc1.weight", "res2.0.gate.fc2.weight", "stem.conv1.weight",
          "bottom_up.stem.conv1.weight", "rpn_head.anchor_deltas.weight"]  # fmt: skip


class Priced:
    """A quantiser whose file is the list of what is kept; each other layer costs so many points of AP."""

    layers = LAYERS

    def __init__(self, price: dict[str, float]) -> None:
        self.price, self.writes = price, 0

    def write(self, path: Path, kept: Sequence[str]) -> None:
        path.write_text(json.dumps(list(kept)))
        self.writes += 1

    def evaluate(self, path: Path) -> dict[str, dict[str, float]]:
        kept = json.loads(path.read_text())
        lost = sum(cost for layer, cost in self.price.items() if layer not in kept)
        return {"bbox": {"AP": 40.0 - lost}, "segm": {"AP": 30.0}}


def test_nothing_goes_back_where_nothing_is_lost(tmp_path: Path) -> None:
    priced = Priced({LAYERS[0]: 0.4})
    found = quantise(priced, tmp_path / "x", priced.evaluate, BEFORE)
    assert (found.kept, found.layers, priced.writes) == ({}, (6, 6), 1)
    assert found.after["bbox"]["AP"] == pytest.approx(39.6)


def test_the_group_that_costs_goes_back_and_no_other(tmp_path: Path) -> None:
    """Gates cost nothing and stay in int8 though they are tried first; the search ends once AP is back."""
    priced = Priced({"rpn_head.anchor_deltas.weight": 3.0, "bottom_up.stem.conv1.weight": 0.3})
    found = quantise(priced, tmp_path / "x", priced.evaluate, BEFORE)
    assert found.kept == {"outputs": 1} and found.layers == (5, 6)
    assert json.loads((tmp_path / "x").read_text()) == ["rpn_head.anchor_deltas.weight"]


def test_what_was_best_is_written_though_too_much_is_lost(tmp_path: Path) -> None:
    """Here the trunk and gates go back; what no layer is to blame for stays lost."""
    priced = Priced({LAYERS[0]: 2.0, LAYERS[1]: 1.0, "all": 0.7})
    found = quantise(priced, tmp_path / "x", priced.evaluate, BEFORE)
    assert found.kept == {"gates": 2, "res2": 1} and found.lost == pytest.approx(0.7)
    assert json.loads((tmp_path / "x").read_text()) == [LAYERS[1], LAYERS[2], LAYERS[0]]
    assert str(found) == "3 of 6 layers in int8, in float32 gates (2), res2 (1): bbox AP 40.00 to 39.30, " \
                         "segm AP 30.00 to 30.00"  # fmt: skip


def test_other_formats_are_refused(tmp_path: Path) -> None:
    network = Exportable(torch.nn.Identity(), ("y",), ((1, 3, 8, 8),))
    with pytest.raises(ExportError, match=r"x.pt2 cannot be int8: use .onnx or .xml|use .xml or .onnx"):
        write_int8(network, tmp_path / "x.pt2", data=[])


def test_each_task_is_judged_by_its_own_figure() -> None:
    before = {"bbox": {"AP50": 60.0, "AP": 40.0}, "sem_seg": {"mIoU": 50.0, "fwIoU": 9.0}, "panoptic_seg": {"PQ": 30.0},
              "box_proposals": {"AR@100": 9.0, "AR@1000": 45.0}, "validation": {"total_loss": 1.0}}  # fmt: skip
    after = {**before, "panoptic_seg": {"PQ": 28.5}, "bbox": {"AP50": 1.0, "AP": 41.0}}
    assert figures(before) == {
        "bbox AP": 40.0, "sem_seg mIoU": 50.0, "panoptic_seg PQ": 30.0, "box_proposals AR@1000": 45.0
    }  # fmt: skip
    assert loss(before, after) == 1.5 and "panoptic_seg PQ 30.00 to 28.50" in change(before, after)
    assert loss(before, {**after, "bbox": {"AP": float("nan")}}) == float("inf")
    check_judges(before, 0.5, "v.json")
    for metrics, match in (
        ({"bbox": {"AP": float("nan")}}, "bbox AP of the float32 network is nan on v.json"),
        ({"bbox": {"AP": 40.0}, "segm": {"AP": 0.3}}, "segm AP of the float32 network is 0.30"),
        ({"mine": {"score": 1.0}}, "the evaluation gives mine"),
    ):
        with pytest.raises(ExportError, match=match):
            check_judges(metrics, 0.5, "v.json")


def test_what_cannot_be_judged_or_written_is_refused_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").touch()
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}], "categories": [{"id": 1, "name": "ant"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 1}],
    }  # fmt: skip

    def export(name: str = "x.xml", classes: Sequence[str] = ("ant",), **changed: Any) -> None:
        (tmp_path / "v.json").write_text(json.dumps({**content, **changed}))
        facts = {"architecture": "GeneralizedRCNN", "classes": [{"name": one} for one in classes]}
        network = Exportable(torch.nn.Identity(), ("boxes", "counts"), ((1, 8, 8),), metadata=facts)
        data = ["DATASETS.VAL_JSON", str(tmp_path / "v.json"), "DATASETS.VAL_IMAGES", str(tmp_path)]
        write_int8(network, tmp_path / "out" / name, data=data)

    monkeypatch.setattr(detectors, "require", lambda *needed: None)
    monkeypatch.setattr("se_det.training.datasets._check_images", lambda *args, **options: None)
    with pytest.raises(DataError, match="v.json has no annotations"):
        export()
    objects = [{**content["annotations"][0], "iscrowd": 0}]
    with pytest.raises(ConfigError, match="The network has the classes bee .1., and the data has ant .1., in .*v.json"):
        export(classes=("bee",), annotations=objects)
    (tmp_path / "out" / "x.bin").write_text("mine")
    with pytest.raises(CheckpointError, match="x.bin would be replaced, as it belongs to x.xml"):
        export(annotations=objects)
    (tmp_path / "out" / "d.onnx").mkdir()
    with pytest.raises(CheckpointError, match="d.onnx is a folder"):
        export("d.onnx", annotations=objects)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"x.bin", "d.onnx"}
    (tmp_path / "out" / "x.xml").touch()
    check_place(tmp_path / "out" / "x.xml")  # its own .bin then


def test_files_that_belong_together_are_replaced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xml, weights = tmp_path / "x.xml", tmp_path / "x.bin"
    replace_together({weights: b"1", xml: b"a"})
    replace = os.replace

    def dies(source: Path, target: Path) -> None:
        if target == xml:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("os.replace", dies)
        replace_together({weights: b"2", xml: b"b"})
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]  # never the old .xml with the new .bin
    replace_together({weights: b"3", xml: b"c"})
    assert (weights.read_bytes(), xml.read_bytes()) == (b"3", b"c") and len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(CheckpointError, match="x.xml could not be written: No space left.* previous file is unchanged"):
        replace_together({weights: b"4", xml: b"d"})
    assert (weights.read_bytes(), xml.read_bytes()) == (b"3", b"c")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ending", "judged"), [
    ("panoptic", ".onnx", ["bbox AP", "segm AP", "sem_seg mIoU", "panoptic_seg PQ"]),
    ("proposals", ".xml", ["box_proposals AR@1000"]),
    ("keypoint", ".onnx", ["bbox AP", "keypoints AP"]),
    ("semantic", ".xml", ["sem_seg mIoU"]),
])  # fmt: skip
def test_the_command(
    case_of: Callable[[str], ExportCase], kind: str, ending: str, judged: list[str], tmp_path: Path,
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It says what `--eval-only` finds of checkpoint and file; then a quantiser fails, and too much is lost."""
    pytest.importorskip({".onnx": "onnxruntime", ".xml": "nncf"}[ending], reason="int8 files need it")
    case, file = case_of(kind), tmp_path / f"x{ending}"
    plain = case.file(ending)  # exported before: that takes most of the time

    def copy(network: Exportable, path: Path) -> None:
        for part in plain.parent.glob(f"{plain.stem}.*"):
            shutil.copyfile(part, path.with_suffix(part.suffix))

    monkeypatch.setattr(detectors, "write", copy)
    monkeypatch.setattr(detectors, "check_judges", lambda *known: None)  # all may be lost: these are random weights
    words = ["export", "--weights", str(case.weights), "--output", str(file), "--int8", "--max-loss", "100",
             "DATALOADER.NUM_WORKERS=0", *case.data]  # fmt: skip
    with caplog.at_level("INFO", "se_det"):
        assert main(words) == 0
    after = figures(evaluated(file, case.data, tmp_path / "evaluated"))
    before = figures(case.metrics)
    assert sorted(after) == sorted(before) == sorted(judged)
    told = ", ".join(f"{name} {before[name]:.2f} to {after[name]:.2f}" for name in judged)
    assert re.search(rf"x{ending}: (\d+) of \1 layers in int8: {re.escape(told)}\.", caplog.text)
    quantiser, written = QUANTISERS.get(ending), file.read_bytes()
    monkeypatch.setattr(quantiser, "write", lambda self, path, kept: [][0])
    assert main(words) == 1
    assert f"x{ending} is not written, as its quantiser fails: IndexError" in capsys.readouterr().err
    monkeypatch.setattr(detectors, "quantise", lambda *args, **options: Quantised({}, (1, 1), BEFORE, {}))
    assert main(words) == 1
    assert f"x{ending} is not written: the best of what was tried loses more than 100" in capsys.readouterr().err
    assert file.read_bytes() == written


class Small(torch.nn.Module):
    """A convolution, and a product without weights as resizing has it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.gate = torch.nn.Conv2d(16, 16, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = torch.matmul(images, images.mT)
        x = torch.relu(self.first(images))
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "nncf")])
def test_layers_with_weights_are_quantised(tmp_path: Path, suffix: str, package: str) -> None:
    needs_onnx()
    pytest.importorskip(package, reason=f'int8 needs {package}: pip install "se_det[openvino]"')
    network = Exportable(Small().eval(), ("y",), ((2, 3, 16, 16), (1, 3, 24, 24)), metadata={"precision": "float32"})
    plain = tmp_path / f"plain{suffix}"
    write(network, plain)
    random = np.random.default_rng(0)
    images = [[random.normal(size=(1, 3, 16, 16)).astype(np.float32)] for _ in range(8)]
    quantiser = QUANTISERS.get(suffix)(plain, images)
    assert len(quantiser.layers) == 2 and any("gate" in name for name in quantiser.layers)
    gates = [name for name in quantiser.layers if "gate" in name]
    outputs = {}
    for name, kept in (("all", []), ("some", gates), ("none", quantiser.layers)):
        made = tmp_path / f"{name}{suffix}"
        quantiser.write(made, kept)
        runtime = open_runtime(made)
        assert runtime.metadata["precision"] == "int8"
        outputs[name] = runtime.run(images[0])[0]
    known = open_runtime(plain).run(images[0])[0]
    scale = np.abs(known).max()
    np.testing.assert_allclose(outputs["none"], known, atol=1e-5 * scale)
    for name in ("all", "some"):
        assert 1e-4 < np.abs(outputs[name] - known).max() / scale < 0.1
    assert METADATA_KEY == "se_det"
