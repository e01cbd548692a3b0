"""Which operators make the passes over large maps that gates add: PyTorch's, or our Triton kernels."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import nn

from ..errors import ConfigError
from .gates import Gate

KERNELS = ("pytorch", "triton")


def check_kernels(name: str, device: torch.device) -> None:
    """Whether MODEL.KERNELS can be `name` on `device`.

    Raises:
        ConfigError: it is unknown, Triton is not installed, or the device is none that it makes code for.
    """
    if name not in KERNELS:
        raise ConfigError(f"MODEL.KERNELS '{name}' is unknown: use {' or '.join(KERNELS)}.")
    if name == "pytorch":
        return
    if importlib.util.find_spec("triton") is None:
        raise ConfigError("MODEL.KERNELS is triton, which is not installed: pip install triton, or use pytorch.")
    if not triton_runs_on(device):
        raise ConfigError(f"MODEL.KERNELS triton is for GPUs, and the device is {device.type}: use pytorch.")


def triton_runs_on(device: torch.device) -> bool:
    """Whether kernels can be started on what lies on `device`; on a CPU its interpreter's can."""
    return device.type in ("cuda", "xpu") or os.environ.get("TRITON_INTERPRET") == "1"


def makes_passes(gate: Gate, x: torch.Tensor) -> bool:
    """Whether our kernels make the passes over maps like `x`: not over what was moved to a CPU, nor in float64."""
    return gate.triton and x.dtype != torch.float64 and triton_runs_on(x.device)


def use_triton(model: nn.Module, wanted: bool = True) -> nn.Module:
    """Have the gates of `model` make their passes over maps by our Triton kernels, in place.

    Up to rounding results and gradients are the same. Compilers and exporters see PyTorch's operators.
    """
    for gate in model.modules():
        if isinstance(gate, Gate):
            gate.triton = wanted
    return model
