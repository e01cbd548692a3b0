"""Exact statistics of batch norms, against those of all the values that they see, taken together."""

from __future__ import annotations

import torch
from torch import nn

from se_det.training.ema import EMA
from se_det.training.loop import seed_step
from se_det.training.precise_bn import PreciseBN


class Noisy(nn.Module):
    """A norm after a random change of the input, as proposals are drawn in a detector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.BatchNorm2d(4).eval()

    def values(self, batch: list[torch.Tensor]) -> torch.Tensor:
        x = self.conv(torch.stack(batch))
        return x + torch.rand_like(x)

    def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": self.frozen(self.norm(self.values(batch))).mean()}


def batches(step: int):
    """Of different sizes, so that their means do not count alike."""
    number = step
    while True:
        generator = torch.Generator().manual_seed(number)
        yield [torch.randn(3, 4 + number % 3, 5, generator=generator) * (1 + number % 4) for _ in range(2)]
        number += 1


def pooled(model: Noisy, step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = []
    with torch.no_grad():
        for number, batch in zip(range(count), batches(step)):
            seed_step(3, step, number)
            rows.append(model.values(batch).transpose(0, 1).flatten(1))
    values = torch.cat(rows, 1)
    return values.mean(1), values.var(1, unbiased=False)


def test_statistics_are_those_of_all_values_together():
    torch.manual_seed(0)
    model = Noisy()
    buffers = model.norm.running_mean, model.norm.running_var
    for step in (6, 8):
        PreciseBN(model, batches=batches, num_iter=7, seed=3)(step)
        mean, variance = pooled(model, step, 7)
        torch.testing.assert_close(model.norm.running_mean, mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.norm.running_var, variance, rtol=1e-4, atol=1e-6)
    assert buffers[0] is model.norm.running_mean and buffers[1] is model.norm.running_var
    assert model.norm.momentum == 0.1 and model.norm.training and model.norm.num_batches_tracked == 0
    assert model.frozen.running_mean.eq(0).all()


def test_the_average_of_the_weights_has_statistics_of_its_own():
    torch.manual_seed(0)
    model = Noisy()
    ema = EMA(model, decay=0.9)
    with torch.no_grad():
        model.conv.weight.mul_(3)
    PreciseBN(model, batches=batches, num_iter=4, seed=3, ema=ema)(0)
    for context in (torch.no_grad(), ema.applied()):
        with context:
            mean, variance = pooled(model, 0, 4)
            torch.testing.assert_close(model.norm.running_mean, mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model.norm.running_var, variance, rtol=1e-4, atol=1e-5)
            weight = model.conv.weight.abs().sum().item()
    assert weight < model.conv.weight.abs().sum().item() / 2


def test_what_has_no_such_norm_is_told(caplog):
    PreciseBN(nn.Conv2d(3, 3, 1), batches=batches, num_iter=4, seed=3)(0)
    assert "TEST.PRECISE_BN does nothing: no batch norm of this detector trains." in caplog.text
