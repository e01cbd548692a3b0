"""The losses against timm's."""

from __future__ import annotations

import pytest
import torch

from se_det.classification.losses import ClassificationLoss
from se_det.errors import ConfigError

timm_loss = pytest.importorskip("timm.loss")


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(8, 5, generator=generator)
    return torch.randn(8, 5, generator=generator) * 3, torch.arange(8) % 5, shares / shares.sum(1, keepdim=True)


def test_cross_entropy(case) -> None:
    logits, labels, shares = case
    for smoothing in (0.1, 0.3):
        expected = timm_loss.LabelSmoothingCrossEntropy(smoothing)(logits, labels)
        torch.testing.assert_close(ClassificationLoss(smoothing=smoothing)(logits, labels), expected)
    expected = timm_loss.SoftTargetCrossEntropy()(logits, shares)
    torch.testing.assert_close(ClassificationLoss()(logits, shares), expected)


def test_binary_cross_entropy(case) -> None:
    logits, labels, shares = case
    for smoothing in (0.0, 0.1):
        loss = ClassificationLoss(name="BCE", smoothing=smoothing)
        expected = timm_loss.BinaryCrossEntropy(smoothing=smoothing)(logits, labels)
        torch.testing.assert_close(loss(logits, labels), expected)
        torch.testing.assert_close(loss(logits, torch.eye(5)[labels]), expected)  # shares of one class are that class
    expected = timm_loss.BinaryCrossEntropy(smoothing=0.0)(logits, shares)
    torch.testing.assert_close(ClassificationLoss(name="BCE")(logits, shares), expected)


def test_the_loss_is_in_float32(case) -> None:
    logits, labels, _ = case
    assert ClassificationLoss()(logits.bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize(("how", "match"), [({"name": "MSE"}, "SOLVER.LOSS 'MSE'"), ({"smoothing": 1.0}, "SMOOTHING")])
def test_unknown_losses_are_refused(how: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ClassificationLoss(**how)
