"""The evaluation loop: modes, gradients, what reaches the evaluator."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from se_det.evaluation import evaluate, evaluator


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.free = nn.Linear(1, 1)

    def forward(self, samples: list[dict]) -> list[dict]:
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in self.modules())
        values = self.norm(torch.tensor([[sample["value"]] for sample in samples]))
        if values.max() > 99:
            raise RuntimeError("too much")
        return [{"instances": value} for value in values]


class _Collector:
    def __init__(self) -> None:
        self.seen = ["left from before"]

    def reset(self) -> None:
        self.seen = []

    def process(self, samples: list[dict], outputs: list[dict]) -> None:
        self.seen += [(sample["value"], output["instances"].requires_grad) for sample, output in zip(samples, outputs)]

    def evaluate(self) -> dict:
        return {"bbox": {"AP": float(len(self.seen))}}


@pytest.mark.parametrize("lengths_known", [True, False])
def test_every_sample_is_processed_once(
    lengths_known: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "LOG_SECONDS", 0.0)
    batches = [[{"value": 1.0}, {"value": 2.0}], [{"value": 3.0}]]
    collector = _Collector()
    with caplog.at_level(logging.INFO, logger=evaluator.__name__):
        metrics = evaluate(_Model(), batches if lengths_known else iter(batches), collector)
    assert metrics == {"bbox": {"AP": 3.0}}
    assert collector.seen == [(1.0, False), (2.0, False), (3.0, False)]
    assert ("Evaluated batch 1 of 2:" in caplog.text and "left." in caplog.text) == lengths_known
    assert "Evaluated 3 images in" in caplog.text


@pytest.mark.parametrize("value", [1.0, 1000.0])
def test_each_module_gets_its_own_mode_back(value: float) -> None:
    """Also after an error: a norm frozen in evaluation mode must not start to learn because of an evaluation."""
    model = _Model().train()
    model.norm.eval()
    if value > 99:
        with pytest.raises(RuntimeError, match="too much"):
            evaluate(model, [[{"value": value}]], _Collector())
    else:
        evaluate(model, [[{"value": value}]], _Collector())
    assert [model.training, model.norm.training, model.free.training] == [True, False, True]


def test_a_part_without_images() -> None:
    """A process may have none when there are fewer images than processes."""
    assert evaluate(_Model(), [], _Collector()) == {"bbox": {"AP": 0.0}}
