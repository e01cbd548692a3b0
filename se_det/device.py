"""Which device this process computes on."""

from __future__ import annotations

import os

import torch

from . import comm
from .errors import ConfigError


def select_device(name: str) -> torch.device:
    """The device called `name`, as MODEL.DEVICE; the CPU where there is no GPU.

    Raises:
        ConfigError: a device that is unknown or not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"MODEL.DEVICE '{name}' is unknown: use cuda, cuda:<number> or cpu.") from error
    if device.type not in ("cuda", "cpu"):
        raise ConfigError(f"MODEL.DEVICE '{name}' is not supported: use cuda or cpu.")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", 0)) if comm.is_distributed() else (device.index or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError(f"MODEL.DEVICE '{name}': there are {torch.cuda.device_count()} GPUs, counted from 0.")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device
