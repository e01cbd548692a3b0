"""Which layers go back to float32, and that what is quantised is what has weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from se_det.errors import ExportError
from se_det.export import Exportable, write
from se_det.export.int8 import QUANTISERS, quantise
from se_det.export.int8.detectors import write_int8
from se_det.inference.runtimes import METADATA_KEY, open_runtime

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
