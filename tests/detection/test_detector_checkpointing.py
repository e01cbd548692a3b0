"""A detector that computes its blocks twice trains and evaluates as one that keeps what they computed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from se_det.backbones.activation_checkpointing import checkpoint_activations
from se_det.detection.build import build_detector
from se_det.errors import ConfigError

from .conftest import make_sample, small_config


@pytest.mark.parametrize("gate", ["se", "rg_se"])
def test_losses_gradients_statistics_and_detections_are_the_same(gate):
    samples = [make_sample(96, 128, [[10, 20, 60, 70], [50, 5, 120, 90]]), make_sample(64, 80, [[8, 8, 50, 60]], 1)]
    torch.manual_seed(0)
    plain = build_detector(small_config(gate, overrides=("MODEL.RESNETS.STOCHASTIC_DEPTH", 0.5)))
    twice = copy.deepcopy(plain)
    assert checkpoint_activations(twice) == 8
    found = []
    for model in (plain, twice):
        torch.manual_seed(1)
        losses = model(samples)
        sum(losses.values()).backward()
        with torch.no_grad():
            shown = copy.deepcopy(model).eval()(samples)
        found.append((losses, dict(model.named_parameters()), dict(model.named_buffers()), shown))
    for name, value in found[0][0].items():
        assert torch.equal(value, found[1][0][name])
    for name, parameter in found[0][1].items():
        assert torch.equal(parameter.grad, found[1][1][name].grad), name
    for name, value in found[0][2].items():
        assert torch.equal(value, found[1][2][name]), name
    for one, other in zip(found[0][3], found[1][3]):
        assert torch.equal(one["instances"]["pred_boxes"], other["instances"]["pred_boxes"])


def test_a_copy_computes_with_its_own_weights():
    model = build_detector(small_config())
    checkpoint_activations(model)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    assert model.backbone.bottom_up(torch.randn(1, 3, 64, 64))["res5"].abs().max() > 0
    assert other.backbone.bottom_up(torch.randn(1, 3, 64, 64))["res5"].abs().max() == 0


def test_what_has_no_stages_is_refused():
    with pytest.raises(ConfigError, match=r"MODEL\.CHECKPOINT_ACTIVATIONS is for this package's own backbones"):
        checkpoint_activations(nn.Sequential(nn.Conv2d(3, 3, 1)))
