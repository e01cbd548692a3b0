"""Automatic mixed precision: autocast around the forward pass, loss scaling for float16."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from ..errors import ConfigError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Precision:
    """How the arithmetic of a step is done.

    Args:
        enabled: whether there is autocast at all.
        dtype: "float16" (with loss scaling) or "bfloat16".
        device_type: "cpu" or "cuda".

    Raises:
        ConfigError: an unknown dtype.
    """

    def __init__(self, *, enabled: bool = False, dtype: str = "float16", device_type: str = "cpu") -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"SOLVER.AMP.DTYPE '{dtype}' is unknown: use one of {', '.join(DTYPES)}.")
        self.enabled = enabled
        self.dtype = DTYPES[dtype]
        self.device_type = device_type
        self.scaled = enabled and self.dtype == torch.float16
        self._scaler = torch.amp.GradScaler(device_type, enabled=self.scaled)

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass.

        Weights are cast anew in each: PyTorch forgets its casts where the outermost context ends, which a caller's may
        be, or one that was never left, and would go on with the weights of an earlier step.
        """
        if self.enabled:
            torch.clear_autocast_cache()
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`, scaled where float16 needs it."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, clip: Callable[[], None] | None = None) -> None:
        """Unscale, `clip()`, and step; a step whose float16 gradients overflowed is skipped."""
        if clip is not None:
            self._scaler.unscale_(optimizer)
            clip()
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and its counters; empty without loss scaling."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the loss scale in `state`."""
        if state:
            self._scaler.load_state_dict(state)
