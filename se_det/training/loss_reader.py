"""The losses of the last steps, kept on the device until they are read together: reading stops a GPU's queue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import comm
from ..errors import TrainingError

MAX_IDS = 16  # images named in a sentence


def is_loss(name: str) -> bool:
    """Whether a term is part of what is minimised, and not only told."""
    return name.startswith("loss")


@dataclass(frozen=True)
class StepLosses:
    """What one step was, averaged over processes and accumulated parts."""

    step: int  # from 0
    lr: float
    losses: dict[str, float]

    @property
    def total(self) -> float:
        return sum(value for name, value in self.losses.items() if is_loss(name))


@dataclass(frozen=True)
class _StepRecord:
    step: int
    lr: float
    names: tuple[str, ...]
    values: torch.Tensor  # (len(names),), of this process
    image_ids: list[Any]


class LossReader:
    """Collects the losses of each step and reads them when asked, on all processes together."""

    def __init__(self) -> None:
        self._pending: list[_StepRecord] = []

    def add(self, step: int, lr: float, parts: Sequence[Mapping[str, torch.Tensor]], image_ids: Sequence[Any]) -> None:
        """Take the loss terms of a step's parts (each a dict of 0-d tensors) and the images they are of."""
        names = tuple(parts[0])
        values = torch.stack([torch.stack([part[name].detach().float() for name in names]) for part in parts]).mean(0)
        self._pending.append(_StepRecord(step, lr, names, values, list(image_ids)))

    def read(self) -> list[StepLosses]:
        """The steps added since the last call, oldest first. Every process must call it at the same step.

        Raises:
            TrainingError: on every process, when a loss is not finite on any; names the first such step, its
                learning rate, terms and images.
        """
        if not self._pending:
            return []
        pending, self._pending = self._pending, []
        own = torch.stack([p.values for p in pending])
        mean = comm.mean_over_processes(own.clone()).cpu()
        bad = (~torch.isfinite(mean)).any(1).nonzero().flatten().tolist()
        if bad:
            _raise_not_finite(pending[bad[0]])
        return [StepLosses(p.step, p.lr, dict(zip(p.names, row))) for p, row in zip(pending, mean.double().tolist())]

    def explain(self) -> TrainingError | None:
        """After a failure of this process alone: the error of the first unread step with a loss that is not finite."""
        for p in self._pending:
            if not torch.isfinite(p.values).all():
                return TrainingError(_sentence(p.step, p.lr, [_averaged(p)]))
        return None


def _raise_not_finite(pending: _StepRecord) -> None:
    averaged = comm.gather(None if torch.isfinite(pending.values).all() else _averaged(pending))
    raise TrainingError(comm.broadcast_object(_sentence(pending.step, pending.lr, [t for t in averaged if t])))


def _averaged(pending: _StepRecord) -> tuple[dict[str, float], list[Any]]:
    return dict(zip(pending.names, pending.values.tolist())), pending.image_ids


def _sentence(step: int, lr: float, averaged: Sequence[tuple[Mapping[str, float], Sequence[Any]]]) -> str:
    where = "; ".join(
        f"{', '.join(f'{name} {_number(value)}' for name, value in losses.items())} on image ids "
        f"{', '.join(map(str, ids[:MAX_IDS]))}{f', ... ({len(ids)} in all)' if len(ids) > MAX_IDS else ''}"
        for losses, ids in averaged
    )
    return (
        f"The loss is not finite in step {step + 1} at learning rate {lr:.6g}: {where}. No checkpoint of it was "
        "written. Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, set SOLVER.CLIP_GRADIENTS.ENABLED True, or look "
        "at these images' annotations; --resume goes on from the last checkpoint."
    )


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)
