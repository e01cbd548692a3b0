"""Which device this process computes on."""

from __future__ import annotations

import os

import torch

from . import comm
from .errors import ConfigError

# ROCm's devices are called cuda, too. Each is asked for when it is wanted: not every PyTorch knows all of them.
AVAILABLE = {
    "cuda": lambda: torch.cuda.is_available(),
    "mps": lambda: torch.backends.mps.is_available(),
    "xpu": lambda: torch.xpu.is_available(),
}
KNOWN = "cuda, cuda:<number>, mps, xpu, xpu:<number> or cpu"


def select_device(name: str) -> torch.device:
    """The device called `name`, as MODEL.DEVICE; the CPU where there is no GPU of that kind.

    Raises:
        ConfigError: a device that is unknown or not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"MODEL.DEVICE '{name}' is unknown: use {KNOWN}.") from error
    if device.type not in (*AVAILABLE, "cpu"):
        raise ConfigError(f"MODEL.DEVICE '{name}' is not supported: use {KNOWN}.")
    if device.type == "cpu":
        return device
    count = count_devices(name)
    if not count:
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", 0)) if comm.is_distributed() else (device.index or 0)
    if index >= count:
        if device.type == "mps":
            raise ConfigError(f"MODEL.DEVICE '{name}': there is one such device, for one process.")
        raise ConfigError(f"MODEL.DEVICE '{name}': there are {count} GPUs, counted from 0.")
    device = torch.device(device.type, index)
    if device.type != "mps":
        getattr(torch, device.type).set_device(device)
    return device


def count_devices(name: str) -> int:
    """How many GPUs of the kind of `name`, as MODEL.DEVICE, this machine has; 0 for the CPU."""
    kind = name.partition(":")[0]
    if kind not in AVAILABLE or not AVAILABLE[kind]():
        return 0
    return 1 if kind == "mps" else getattr(torch, kind).device_count()


def reads_pinned_memory(device: torch.device) -> bool:
    """Whether the device copies from page-locked memory by itself, while the host goes on."""
    return device.type in ("cuda", "xpu")


def wait_for(device: torch.device) -> None:
    """Return when `device` has done all that it was given."""
    if device.type in AVAILABLE:
        getattr(torch, device.type).synchronize()


def peak_device_memory_mib(device: torch.device) -> float | None:
    """The most memory that this process's tensors have taken on `device`, in MiB; None where nobody counts."""
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).max_memory_allocated(device) / 2**20
    return None
