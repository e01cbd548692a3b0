"""Operators that a device lacks are computed on the CPU."""

from __future__ import annotations

import logging

import pytest
import torch

from se_det.detection.operators import on_cpu_where_missing


def doubled(x: torch.Tensor, times: float) -> torch.Tensor:
    """Of the CPU alone."""
    if x.device.type != "cpu":
        raise NotImplementedError("Could not run 'torchvision::doubled' with arguments from the 'META' backend.")
    return x * times


class Elsewhere(torch.Tensor):
    """A tensor of the CPU that says it is on another device until it is moved."""

    @property
    def device(self) -> torch.device:
        return torch.device("meta")

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_a_missing_operator_is_told_of_once(caplog, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: (self, device))
    run = on_cpu_where_missing(doubled)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            result, device = run(torch.ones(2).as_subclass(Elsewhere), 3.0)
    assert result.tolist() == [3.0, 3.0] and device == torch.device("meta")
    assert caplog.text.count("torchvision has no doubled for meta: it is computed on the CPU.") == 1


def test_on_a_cpu_nothing_is_hidden():
    def missing(x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("not on any device")

    with pytest.raises(NotImplementedError):
        on_cpu_where_missing(missing)(torch.ones(1))
