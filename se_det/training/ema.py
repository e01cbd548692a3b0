"""An exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from ..internals.foreach import lerp_


class EMA:
    """Averages every parameter and floating-point buffer that the model's state has.

    After step t (from 0) `average = d * average + (1 - d) * value` with `d = min(decay, (1 + t) / (10 + t))`: early
    on the average forgets the random start quickly.

    Args:
        model: already on its device; not wrapped.
        decay: between 0 and 1, such as 0.999.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        # keep_vars: without it the state holds other tensors than the model, though on the same memory.
        self._live = {k: v.data for k, v in model.state_dict(keep_vars=True).items() if v.is_floating_point()}
        self._average = {name: value.clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number `step`, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        lerp_([*self._average.values()], [*self._live.values()], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside, its own outside."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._live.items():
            kept = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(kept)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages by the model's names."""
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from the averages in `state`.

        Raises:
            KeyError: a name is missing.
        """
        for name, value in self._average.items():
            value.copy_(state[name])
