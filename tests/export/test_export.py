"""Exported networks compute what PyTorch does, at every size and batch, in ONNX and as programs of torch.export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from se_det.backbones.catalog import create_model
from se_det.cli.main import main
from se_det.config import get_cfg, load_config
from se_det.detection import build_detector
from se_det.errors import ExportError
from se_det.export import Exportable, classifier, pyramid, write, writing
from se_det.layers.area import average_grid

GATES = ("", "se_", "sp_se_", "rg_se_", "cbam_")


def needs_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f'ONNX export needs {package}: pip install "se_det[export]"')


def spread(module: torch.nn.Module) -> torch.nn.Module:
    """Random values everywhere, so that no factor, norm or bias is one that hides a fault."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point() and value.ndim < 2:
                value.uniform_(0.2, 0.8)
    return module.eval()


class Grid(torch.nn.Module):
    """The one layer that ONNX has not."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return average_grid(x, self.bins)


@pytest.mark.parametrize("bins", [2, 4, 8])
def test_grids_that_do_not_divide(tmp_path: Path, bins: int) -> None:
    """pytorch#64806: sides below, beside and far from multiples of the grid."""
    sides = [(2, 3, 7, 9), *((1, 3, h, w) for h, w in ((2, 3), (3, 5), (4, 4), (7, 8), (8, 16), (13, 50)))]
    network = Exportable(Grid(bins), ("grid",), tuple(sides))
    assert write(network, tmp_path / "grid.pt2") < 1e-6
    loaded = torch.export.load(tmp_path / "grid.pt2").module()
    x = torch.randn(2, 3, 11, 6)
    torch.testing.assert_close(loaded(x), F.adaptive_avg_pool2d(x, bins))
    torch.testing.assert_close(average_grid(x, bins), F.adaptive_avg_pool2d(x, bins), rtol=0, atol=0)


def test_grids_in_onnx(tmp_path: Path) -> None:
    needs_onnx()
    sides = ((2, 3, 7, 9), (1, 3, 2, 3), (1, 3, 3, 5), (3, 3, 13, 50))
    assert write(Exportable(Grid(4), ("grid",), sides), tmp_path / "grid.onnx") < 1e-6


def onnx_against_torch(path: Path, module: torch.nn.Module, shapes: list[tuple[int, ...]]) -> float:
    """Our own comparison, with nothing of the writer's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for shape in shapes:
        images = torch.randn(shape)
        with torch.no_grad():
            ours = module(images)
        ours = list(ours.values()) if isinstance(ours, dict) else [ours]
        for one, other in zip(ours, session.run(None, {"images": images.numpy()}), strict=True):
            worst = max(worst, float(np.abs(one.numpy() - other).max()))
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_classifiers(tmp_path: Path, gate: str) -> None:
    needs_onnx()
    model = spread(create_model(f"{gate}resnet50", num_classes=7))
    network = classifier(model, says={"input_format": "RGB"})
    for name in ("c.onnx", "c.pt2"):
        assert write(network, tmp_path / name) < 1e-4
    shapes = [(1, 3, 32, 32), (2, 3, 65, 97), (4, 3, 160, 128), (1, 3, 300, 211)]
    assert onnx_against_torch(tmp_path / "c.onnx", model, shapes) < 1e-4 * 10
    extra = {writing.SAID: ""}
    program = torch.export.load(tmp_path / "c.pt2", extra_files=extra).module()
    assert json.loads(extra[writing.SAID]) == {"input_format": "RGB"}
    for shape in shapes:
        images = torch.randn(shape)
        torch.testing.assert_close(program(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_pyramids(tmp_path: Path, gate: str) -> None:
    needs_onnx()
    cfg = load_config(f"faster_rcnn_{gate}r50_fpn.yaml", ["MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", 0],
                      defaults=get_cfg())  # fmt: skip
    model = spread(build_detector(cfg))
    network = pyramid(model)
    assert network.outputs == ("p2", "p3", "p4", "p5", "p6")
    for name in ("p.onnx", "p.pt2"):
        assert write(network, tmp_path / name) < 1e-4
    assert torch.export.load(tmp_path / "p.pt2").module()(torch.randn(1, 3, 70, 90))[0].shape == (1, 256, 18, 23)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_a_sentence(tmp_path: Path, monkeypatch, missing: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    network = Exportable(Grid(2), ("grid",), ((2, 3, 7, 9),))
    with pytest.raises(ExportError, match=rf"need the package {missing}, .*pip install"):
        write(network, tmp_path / "grid.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_nothing_is_compared(tmp_path: Path, monkeypatch, caplog) -> None:
    needs_onnx()
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert write(Exportable(Grid(2), ("grid",), ((2, 3, 7, 9),)), tmp_path / "grid.onnx") is None
    assert "not compared" in caplog.text and (tmp_path / "grid.onnx").stat().st_size


class Wrong(torch.nn.Module):
    """Computes another thing in its export."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2.0 if torch.compiler.is_exporting() else 2.001)


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "name", "reason"),
    [(Wrong(), "a.pt2", "differ from PyTorch's by 0.0005"), (Branching(), "a.pt2", "cannot be exported: "),
     (Branching(), "a.onnx", "cannot be exported: "), (Wrong(), "a.pth", "unknown ending: use .onnx or .pt2")],
)  # fmt: skip
def test_what_is_not_right_is_not_written(tmp_path: Path, module, name: str, reason: str) -> None:
    if name.endswith("onnx"):
        needs_onnx()
    (tmp_path / name).write_bytes(b"the one before")
    with pytest.raises(ExportError, match=reason):
        write(Exportable(module, ("y",), ((2, 3, 7, 9), (1, 3, 4, 4))), tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == b"the one before"
