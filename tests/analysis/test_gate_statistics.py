"""Gate statistics on cases whose result is known, and the command that writes them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from se_det.analysis.gate_statistics import GateStatistics, collect_gate_statistics
from se_det.backbones import create_backbone
from se_det.cli.main import main
from se_det.errors import ConfigError, DataError
from se_det.layers.gates import SE

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three grey images a class, of one value each: class 'a' 0, 51, 102; class 'b' 255 three times."""
    for label, values in {"a": (0, 51, 102), "b": (255, 255, 255)}.items():
        (tmp_path / "images" / label).mkdir(parents=True)
        for i, value in enumerate(values):
            cv2.imwrite(str(tmp_path / "images" / label / f"{i}.png"), np.full((40, 60, 3), value, np.uint8))
    return tmp_path / "images"


class OneGate(torch.nn.Module):
    """An SE gate on the image itself whose factors are sigmoid of the channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = SE(3, reduction=1)
        with torch.no_grad():
            for layer in (self.gate.fc1, self.gate.fc2):
                layer.weight.copy_(torch.eye(3))
                layer.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(x)


def test_mean_and_deviation_by_class(folder):
    found = collect_gate_statistics(OneGate(), folder, size=32, **PLAIN, batch=2)
    factors = 1 / (1 + np.exp(-np.array([0.0, 0.2, 0.4])))
    assert found.classes == ["a", "b"] and found.images == [3, 3]
    np.testing.assert_allclose(found.mean["gate"][0], factors.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.std["gate"][0], factors.std(), rtol=1e-5)
    np.testing.assert_allclose(found.mean["gate"][1], 1 / (1 + np.exp(-1)), rtol=1e-6)
    np.testing.assert_allclose(found.std["gate"][1], 0, atol=1e-7)
    limited = collect_gate_statistics(OneGate(), folder, size=32, **PLAIN, limit=2)
    np.testing.assert_allclose(limited.mean["gate"][0], factors[:2].mean(), rtol=1e-6)


def test_what_a_gate_tells_apart():
    mean = np.array([[0.95, 0.05, 0.5], [0.95, 0.05, 0.9]])
    std = np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 0.1]])
    (role,) = GateStatistics(["a", "b"], [5, 5], {"res5.0.gate": mean}, {"res5.0.gate": std}).by_gate()
    assert role.pop("gate") == "res5.0.gate"
    expected = {"mean": 1.7 / 3, "between": (0.04 / 3) ** 0.5, "within": (0.01 / 3) ** 0.5, "by_class": 0.8,
                "above_0.9": 1 / 3, "below_0.1": 1 / 3}  # fmt: skip
    assert role == pytest.approx(expected)


def test_channels_come_in_the_order_asked_for(folder):
    red = np.zeros((40, 40, 3), np.uint8)
    red[:, :, 2] = 255  # OpenCV writes BGR
    for path in folder.glob("*/*.png"):
        cv2.imwrite(str(path), red)
    for channels, expected in (("RGB", [1, 0, 0]), ("BGR", [0, 0, 1])):
        found = collect_gate_statistics(OneGate(), folder, size=32, **PLAIN, channels=channels)
        np.testing.assert_allclose(found.mean["gate"][0], 1 / (1 + np.exp(-np.array(expected))), rtol=1e-6)


@pytest.mark.parametrize("gate", ["se", "sp_se", "rg_se", "cbam"])
def test_gates_with_zero_weights_are_exactly_one_half(gate, folder):
    trunk = create_backbone(f"{gate}_resnet18")
    for module in trunk.modules():
        if isinstance(module, SE):
            for parameter in module.fc2.parameters():
                torch.nn.init.zeros_(parameter)
    found = collect_gate_statistics(trunk, folder, size=64, **PLAIN)
    assert len(found.mean) == 8
    assert all((m == 0.5).all() for m in found.mean.values()) and all((s == 0).all() for s in found.std.values())
    assert found.by_stage() == {stage: [0.5, 0.5] for stage in ("res2", "res3", "res4", "res5")}


def test_refusals(folder, tmp_path):
    with pytest.raises(ConfigError, match="no gates to look at"):
        collect_gate_statistics(create_backbone("resnet18"), folder, **PLAIN)
    with pytest.raises(DataError, match="There is no folder"):
        collect_gate_statistics(OneGate(), tmp_path / "nowhere", **PLAIN)
    with pytest.raises(DataError, match="a has no class folders: give a folder of images"):
        collect_gate_statistics(OneGate(), folder / "a", **PLAIN)
    (folder / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="0.png cannot be read"):
        collect_gate_statistics(OneGate(), folder, **PLAIN)


def test_the_command_writes_figures_and_plots(folder, tmp_path, capsys):
    torch.save(create_backbone("se_resnet18").state_dict(), tmp_path / "w.pth")
    arguments = ["analyze-model", "se_resnet18", "--gates", str(folder), "--weights", str(tmp_path / "w.pth"),
                 "--size", "64", "64", "--output", str(tmp_path / "out")]  # fmt: skip
    assert main(arguments) == 0
    written = json.loads((tmp_path / "out" / "gates.json").read_text())
    assert written["classes"] == ["a", "b"] and len(written["gates"]["res5.1.gate"]["mean"][0]) == 512
    plot = cv2.imread(str(tmp_path / "out" / "res5.1.gate.png"))
    assert plot.shape == (400, 960, 3)
    assert len(list((tmp_path / "out").glob("*.png"))) == 9
    assert "| class" in capsys.readouterr().out
    assert main([*arguments, "--format", "csv"]) == 0
    lines = (tmp_path / "out" / "gates.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * (64 + 128 + 256 + 512)
    # A detector's config describes the trunk and its input as well.
    config = [arguments[0], "--config-file", "configs/faster_rcnn_se_r18_fpn.yaml", *arguments[2:]]
    assert main([*config[:-1], str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "gates.json").read_text())
    for stage, means in written["stages"].items():
        np.testing.assert_allclose(again["stages"][stage], means, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seresnet18"], "Did you mean 'se_resnet18'"),
        (["--size", "0", "9", "resnet18"], "--size must be at least 1, got 0"),
        (["--weights", "w.pth", "resnet18"], "--weights and --limit go with --gates"),
        (["--papers", "nothing*"], "No network of the papers' tables matches nothing"),
        (["--papers", "--size", "64", "64"], "--papers compares classifiers at the papers' 224"),
        (["--gates", "x", "se_resnet18"], "--gates needs --weights W"),
        (["--gates", "x", "--weights", "w", "--output", "o"], "looks at one network"),
        (["--gates", "x", "--weights", "w", "--output", "o", "--size", "64", "32", "m"], "--gates crops squares"),
        (["--config-file", "nowhere.yaml"], "There is no config file nowhere.yaml"),
        (["timm/nothing"], "no network 'nothing'"),
    ],
)
def test_wrong_arguments_end_in_a_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["analyze-model", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert list(tmp_path.iterdir()) == []


def test_tables_in_three_forms(tmp_path, capsys):
    assert main(["analyze-model", "se_resnet18", "--size", "64", "96"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3 and table[2].startswith("| se_resnet18 |     64 |    96 | 11,778,592 |")
    for form in ("csv", "json"):
        path = tmp_path / f"costs.{form}"
        assert (
            main(["analyze-model", "*e_resnet18", "--size", "64", "96", "--format", form, "--output", str(path)]) == 0
        )
    rows = json.loads((tmp_path / "costs.json").read_text())
    assert [row["model"] for row in rows] == ["se_resnet18", "sp_se_resnet18", "rg_se_resnet18"]
    lines = (tmp_path / "costs.csv").read_text().splitlines()
    assert lines[0] == ",".join(rows[0]) and lines[1] == ",".join(str(v) for v in rows[0].values())
