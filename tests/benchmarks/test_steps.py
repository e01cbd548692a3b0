"""The steps that benchmarks time are the product's."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from se_det.benchmarks.steps import LEARNING_RATE, TrainingSteps, pretraining_steps, random_batch, recipe
from se_det.config import get_cfg
from se_det.errors import TrainingError


class Sum(nn.Module):
    """Its gradient is the batch's sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, samples):
        return {"loss": (self.weight * sum(sample["x"] for sample in samples)).sum()}


def steps_of(*keys) -> tuple[TrainingSteps, nn.Module]:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MOMENTUM", 0.5, *keys])
    model = Sum()
    return TrainingSteps(cfg, model), model


BATCH = [{"x": torch.tensor([1.0, 2.0])}, {"x": torch.tensor([2.0, -4.0])}]


def test_steps_are_those_of_sgd_with_momentum_and_go_on_from_call_to_call():
    """Gradient g in all of them: after three steps -lr g (1 + 1.5 + 1.75)."""
    steps, model = steps_of()
    steps(itertools.repeat(BATCH))
    steps(itertools.repeat(BATCH), 2)
    torch.testing.assert_close(model.weight.data, -LEARNING_RATE * 4.25 * torch.tensor([3.0, -2.0]))


def test_they_clip_accumulate_and_average_as_the_config_says():
    """A gradient of (3, -2) cut to 1 each; the average after one step has (1 - 1 / 10) of the weights."""
    keys = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value",
            "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1.0, "SOLVER.ACCUMULATE", 2, "SOLVER.EMA.DECAY", 0.99]  # fmt: skip
    steps, model = steps_of(*keys)
    taken = iter([BATCH, BATCH])
    steps(taken)
    assert next(taken, None) is None
    torch.testing.assert_close(model.weight.data, -LEARNING_RATE * torch.tensor([1.0, -1.0]))
    (average,) = steps._train.keywords["ema"].state_dict().values()
    torch.testing.assert_close(average, 0.9 * model.weight.data)


def test_a_loss_that_is_not_finite_is_no_figure():
    steps, _ = steps_of()
    with pytest.raises(TrainingError, match="not finite"):
        steps(itertools.repeat([{"x": torch.tensor([float("nan"), 0.0])}]))


def test_another_librarys_classifier_is_trained_in_the_same_loop():
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    before = classifier[2].weight.clone()
    cfg = recipe(batch=4, size=32, device="cpu")
    steps = pretraining_steps(cfg, classifier)
    steps(itertools.repeat(random_batch(cfg)))
    assert not torch.equal(before, classifier[2].weight)
