from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from se_det.errors import ConfigError
from se_det.layers.norms import GroupNorm
from se_det.training.optimizer import build_optimizer, clip_gradients, parameter_groups, set_learning_rate


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), GroupNorm(32, 64), nn.Conv2d(64, 2, 1, bias=False))


def by_name(model: nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    names = {p: n for n, p in model.named_parameters()}
    return {names[p]: (g["weight_decay"], g["lr_factor"]) for g in groups for p in g["params"]}


def test_norms_and_biases_have_detectron2s_rules() -> None:
    # Detectron2's get_default_optimizer_params sets a norm's decay first and what is called bias, also a norm's, last.
    model = network()
    groups = parameter_groups(
        model, weight_decay=1e-4, weight_decay_norm=0.0, weight_decay_bias=3e-5, bias_lr_factor=2.0
    )
    assert by_name(model, groups) == {
        "0.weight": (1e-4, 1.0),
        "0.bias": (3e-5, 2.0),
        "1.weight": (0.0, 1.0),
        "1.bias": (3e-5, 2.0),
        "2.weight": (0.0, 1.0),
        "2.bias": (3e-5, 2.0),
        "3.weight": (1e-4, 1.0),
    }
    assert len(groups) == 3


def test_defaults_make_two_groups_and_leave_frozen_and_shared_parameters_once() -> None:
    model = network()
    model.append(model[0])
    model[3].weight.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=1e-4, weight_decay_norm=0.0)
    names = by_name(model, groups)
    assert len(groups) == 2
    assert sum(len(g["params"]) for g in groups) == 6
    assert names["0.bias"] == (1e-4, 1.0)
    assert names["1.bias"] == (0.0, 1.0)
    assert "3.weight" not in names


def test_a_group_keeps_its_factor_when_the_rate_changes() -> None:
    optimizer = build_optimizer(network(), base_lr=0.1, weight_decay=0.0, bias_lr_factor=2.0)
    set_learning_rate(optimizer, 0.5)
    assert [(g["lr_factor"], g["lr"]) for g in optimizer.param_groups] == [(1.0, 0.5), (2.0, 1.0)]


def test_sgd_steps_as_written_out() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = build_optimizer(model, base_lr=0.1, weight_decay=0.5, momentum=0.9)
    value, velocity = 2.0, 0.0
    for gradient in (1.0, -3.0, 0.25):
        model.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 0.5 * value
        value -= 0.1 * velocity
        assert model.weight.item() == pytest.approx(value, rel=1e-6)


def test_adamw_first_step_is_the_sign_after_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = build_optimizer(model, name="AdamW", base_lr=0.1, weight_decay=0.5)
    model.weight.grad = torch.full((1, 1), -7.0)
    optimizer.step()
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) + 0.1, rel=1e-6)


def test_a_wrong_optimiser_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SOLVER.OPTIMIZER 'Adam' is unknown"):
        build_optimizer(network(), name="Adam", base_lr=0.1, weight_decay=0.0)
    with pytest.raises(ConfigError, match=r"SOLVER.NESTEROV needs a SOLVER.MOMENTUM"):
        build_optimizer(network(), nesterov=True, momentum=0.0, base_lr=0.1, weight_decay=0.0)
    with pytest.raises(ConfigError, match=r"MODEL.BACKBONE.FREEZE_AT"):
        build_optimizer(network().requires_grad_(False), base_lr=0.1, weight_decay=0.0)


@pytest.mark.parametrize(
    ("clip_type", "expected"),
    [
        ("value", [[1.0, 1.0], [-0.5]]),
        ("norm", [[0.6, 0.8], [-0.5]]),
        ("full_model", [[3 / math.sqrt(25.25), 4 / math.sqrt(25.25)], [-0.5 / math.sqrt(25.25)]]),
    ],
)
def test_gradients_are_clipped(clip_type: str, expected: list[list[float]]) -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([-0.5])
    clip_gradients(parameters, clip_type=clip_type, clip_value=1.0)
    for parameter, values in zip(parameters, expected):
        assert parameter.grad.tolist() == pytest.approx(values, rel=1e-5)
    with pytest.raises(ConfigError, match="CLIP_TYPE 'all'"):
        clip_gradients(parameters, clip_type="all", clip_value=1.0)
