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
from se_det.export import Exportable, classifier, pyramid, write
from se_det.inference.runtimes import METADATA_KEY
from se_det.layers.tracing import is_traced
from se_det.layers.valid_area import average_grid

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


def assert_same(file: Path, module: torch.nn.Module, shapes: list[tuple[int, ...]]) -> None:
    """Our own comparison, with nothing of the writer's."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    else:
        program = torch.export.load(file).module()
    for shape in shapes:
        images = torch.randn(shape)
        with torch.no_grad():
            ours = module(images)
            theirs = session.run(None, {"images": images.numpy()}) if file.suffix == ".onnx" else program(images)
        ours = list(ours.values()) if isinstance(ours, dict) else [ours]
        for one, other in zip(ours, [theirs] if isinstance(theirs, torch.Tensor) else theirs, strict=True):
            scale = max(float(one.abs().max()), 1.0)
            assert float(np.abs(one.numpy() - np.asarray(other)).max()) < 1e-4 * scale, shape


ANY = [(2, 3, 65, 97), (4, 3, 160, 128), (1, 3, 300, 211)]


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_classifiers(tmp_path: Path, gate: str) -> None:
    needs_onnx()
    model = spread(create_model(f"{gate}resnet50", num_classes=7))
    network = classifier(model, metadata={"input_format": "RGB"})
    for name, shapes in (("c.onnx", [(1, 3, 32, 32), *ANY]), ("c.pt2", ANY)):
        assert write(network, tmp_path / name) < 1e-4
        assert_same(tmp_path / name, model, shapes)
    extra = {METADATA_KEY: ""}
    torch.export.load(tmp_path / "c.pt2", extra_files=extra)
    assert json.loads(extra[METADATA_KEY]) == {"input_format": "RGB"}


def small_detector(kind: str, gate: str, padding: str = "keep") -> torch.nn.Module:
    cfg = load_config(
        f"{kind}_rcnn_se_r18_fpn.yaml",
        ["MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.ROI_HEADS.NUM_CLASSES", 5,
         "MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 60, "TEST.DETECTIONS_PER_IMAGE", 20,
         "MODEL.GATE.PADDING", padding, "MODEL.GATE.NAME", gate.strip("_") or "none"], defaults=get_cfg(),
    )  # fmt: skip
    return spread(build_detector(cfg))


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_pyramids(tmp_path: Path, gate: str) -> None:
    needs_onnx()
    model = small_detector("faster", gate)
    network = pyramid(model)
    assert network.outputs == ("p2", "p3", "p4", "p5", "p6")
    for name, shapes in (("p.onnx", [(1, 3, 32, 32), *ANY]), ("p.pt2", ANY)):
        assert write(network, tmp_path / name) < 1e-4
        assert_same(tmp_path / name, model.backbone, shapes)


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
        return x * (2.0 if is_traced() else 2.001)


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "name", "reason"),
    [(Wrong(), "a.pt2", "its output 'y' would differ from PyTorch's by 0.0005 .* Export another kind"),
     (Branching(), "a.pt2", "cannot be exported: "),
     (Branching(), "a.onnx", "cannot be exported: "), (Wrong(), "a.pth", "unknown ending: use .onnx, .xml or .pt2")],
)  # fmt: skip
def test_what_is_not_right_is_not_written(tmp_path: Path, module, name: str, reason: str) -> None:
    if name.endswith("onnx"):
        needs_onnx()
    (tmp_path / name).write_bytes(b"the one before")
    with pytest.raises(ExportError, match=reason):
        write(Exportable(module, ("y",), ((2, 3, 7, 9), (1, 3, 4, 4))), tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == b"the one before"


@pytest.mark.parametrize(("name", "others"), [("a.pt2", ".onnx or .xml"), ("a.onnx", ".xml or .pt2")])
def test_a_runtime_that_fails_is_a_sentence(tmp_path: Path, name: str, others: str) -> None:
    """Here at the second shape, whose sides were not to be free: a file's name, its runtime's words, what to do."""
    if name.endswith("onnx"):
        needs_onnx()
    network = Exportable(Grid(2), ("grid",), ((2, 3, 7, 9), (1, 3, 4, 4)), free=((0,),))
    said = rf"{name} is not written, as .* fails at images of \(1, 3, 4, 4\): .*\. Export another .* \({others}\)"
    with pytest.raises(ExportError, match=said):
        write(network, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path, capsys, caplog) -> None:
    caplog.set_level("INFO")
    model = create_model("mobilenet_v1", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    common = ["export", "--model", "mobilenet_v1", "--num-classes", "3", "--weights", str(tmp_path / "w.pth")]
    assert main([*common, "--output", str(tmp_path / "new" / "a.pt2")]) == 0
    assert "largest difference to PyTorch" in caplog.text
    assert_same(tmp_path / "new" / "a.pt2", model.eval(), ANY[:1])
    for options, named in (
        (["--output", str(tmp_path / "a.pth")], "unknown ending"),
        (["--output", str(tmp_path / "a.pt2"), "--config-file", "x.yaml"], "not both"),
        (["--output", str(tmp_path / "a.pt2"), "SOLVER.BASE_LR", "1"], "--config-file"),
    ):
        assert main([*common, *options]) == 1
        assert named in capsys.readouterr().err
    assert main(["export", "--output", str(tmp_path / "a.pt2"), "--model", "se_resnet50"]) == 1
    assert "No weights were given" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "w.pth"]
