from __future__ import annotations

import pytest
import torch
from torch import nn

from se_det.training.ema import EMA


def test_the_average_is_the_recurrence_written_out() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(model[0].weight, 8.0)
    ema = EMA(model, decay=0.3)
    weight, mean = 8.0, 0.0
    for step in range(6):
        with torch.no_grad():
            model[0].weight.fill_(float(step))
            model[1].running_mean.fill_(10.0 * step)
        ema.update(step)
        decay = min(0.3, (1 + step) / (10 + step))  # 0.1, 2/11, 1/4, 0.3, ...
        weight, mean = decay * weight + (1 - decay) * step, decay * mean + (1 - decay) * 10 * step
    state = ema.state_dict()
    assert state["0.weight"].item() == pytest.approx(weight, rel=1e-6)
    assert state["1.running_mean"].item() == pytest.approx(mean, rel=1e-6)
    assert "1.num_batches_tracked" not in state


def test_the_model_has_the_average_inside_only() -> None:
    model = nn.Linear(2, 1)
    ema = EMA(model, decay=0.9)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        model.weight.add_(1.0)
        model.bias.sub_(1.0)
    raw = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(KeyError), ema.applied():
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        raise KeyError
    assert all(torch.equal(v, raw[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in ema.state_dict().items())
