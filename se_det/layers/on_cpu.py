"""torchvision's operators on any device: where one is missing for it, on the CPU, and the log says so once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger(__name__)


def on_cpu_where_missing(operator: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`operator`, of tensors of one device to a tensor on it, which need not be written for that device."""

    @functools.wraps(operator)
    def run(*given: Any, **options: Any) -> torch.Tensor:
        try:
            return operator(*given, **options)
        except NotImplementedError:
            device = next(value.device for value in given if torch.is_tensor(value))
            if device.type == "cpu":
                raise
            _tell_once(operator.__name__, device.type)
            moved = (value.cpu() if torch.is_tensor(value) else value for value in given)
            return operator(*moved, **options).to(device)

    return run


@functools.cache
def _tell_once(operator: str, device_type: str) -> None:
    logger.warning("torchvision has no %s for %s: it is computed on the CPU.", operator, device_type)
