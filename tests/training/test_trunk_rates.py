"""Learning rates by layer, written out; and the gradients that processes exchange in half precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from se_det import comm
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.errors import ConfigError
from se_det.training import build
from se_det.training.distributed import wrap_distributed
from se_det.training.launch import free_port, spawn
from se_det.training.trunk_rates import trunk_factors


def config(*overrides, name: str = "faster_rcnn_se_r18_fpn"):
    return load_config(f"configs/{name}.yaml", ["MODEL.BACKBONE.FREEZE_AT", 1, *overrides])


def rates(cfg) -> dict[str, float]:
    model = build_detector(cfg)
    optimizer = build.optimizer(cfg, model, base_lr=0.1, scaled=False, lr_factors=trunk_factors(cfg, model))
    names = {p: name for name, p in model.named_parameters()}
    return {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_layers_have_the_rates_of_their_depth() -> None:
    found = rates(config("SOLVER.BACKBONE_LR_FACTOR", 0.5, "SOLVER.LAYER_DECAY", 0.8, "SOLVER.BIAS_LR_FACTOR", 2.0))
    trunk = "backbone.bottom_up."
    assert f"{trunk}stem.conv1.weight" not in found  # frozen: it has no rate, and is a layer all the same
    depths = {"res2.0": 8, "res2.1": 7, "res3.0": 6, "res3.1": 5, "res4.0": 4, "res4.1": 3, "res5.0": 2, "res5.1": 1}
    for block, depth in depths.items():
        for layer in ("conv1.weight", "conv2.weight", "gate.fc1.weight"):
            assert found[f"{trunk}{block}.{layer}"] == pytest.approx(0.1 * 0.5 * 0.8**depth), (block, layer)
        assert found[f"{trunk}{block}.gate.fc1.bias"] == pytest.approx(0.1 * 2 * 0.5 * 0.8**depth)
    others = {name: rate for name, rate in found.items() if not name.startswith(trunk)}
    assert {rate for name, rate in others.items() if not name.endswith("bias")} == {0.1}
    assert "backbone.fpn_lateral2.weight" in others


def test_without_them_there_are_the_groups_of_before() -> None:
    cfg = config()
    model = build_detector(cfg)
    assert trunk_factors(cfg, model) == {}
    groups = build.optimizer(cfg, model, base_lr=0.1, scaled=False).param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.1, 1e-4)]


def test_layers_of_timms_networks_are_timms() -> None:
    pytest.importorskip("timm")
    cfg = config(
        "MODEL.BACKBONE.NAME", "timm/convnext_atto", "MODEL.BACKBONE.FREEZE_AT", 0, "SOLVER.LAYER_DECAY", 0.7,
        name="faster_rcnn_r50_fpn",
    )  # fmt: skip
    found = rates(cfg)
    net = {name.removeprefix("backbone.bottom_up.net."): rate for name, rate in found.items() if ".net." in name}
    # A stem, 2 + 2 + 6 + 2 blocks, and between stages a layer that shares the depth of the block that follows it.
    steps = {round(torch.tensor(rate / 0.1).log().div(torch.tensor(0.7).log()).item(), 3) for rate in net.values()}
    assert steps == {float(i) for i in range(1, len(steps) + 1)} and len(steps) >= 13
    assert net["stem.0.weight"] == min(net.values())
    assert net["stages.3.blocks.1.mlp.fc2.weight"] == max(net.values()) < 0.1


def test_a_model_without_a_trunk_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SOLVER\.LAYER_DECAY 0\.7, and .* has no trunk"):
        trunk_factors(config("SOLVER.LAYER_DECAY", 0.7), nn.Linear(2, 2))


class Linear(nn.Module):
    """One weight for each of three inputs, so that gradients are the inputs themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight * x).sum()


def exchange(folder: str) -> None:
    for compressed in (False, True):
        model = wrap_distributed(Linear(), fp16_compression=compressed)
        model(torch.tensor([1 / 3, 2.0, -1e-9]) * (1 + 2 * comm.get_rank())).backward()
        if comm.is_main_process():
            torch.save(model.module.weight.grad, Path(folder, str(compressed)))


@pytest.mark.usefixtures("quick_start")
def test_gradients_are_exchanged_in_half_precision(tmp_path: Path) -> None:
    spawn(exchange, (str(tmp_path),), processes=2, url=f"tcp://127.0.0.1:{free_port()}")
    exact, rounded = (torch.load(tmp_path / str(compressed)) for compressed in (False, True))
    torch.testing.assert_close(exact, torch.tensor([2 / 3, 4.0, -2e-9]))
    torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=1e-7)
    assert torch.equal(rounded, rounded.half().float()) and not torch.equal(exact, exact.half().float())
