"""How far apart numbers of two devices are, and the kinds of arithmetic that are compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from torch import nn

# Kinds of arithmetic, and how large a share of the largest value a whole network's results may be off by: float32 has
# 24 bits, TF32 and float16 have 11, and bfloat16 has 8.
SHARES = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 6e-2}


def apart(got: torch.Tensor, wanted: torch.Tensor, least: float = 1e-12) -> float:
    """The largest difference, as a share of the largest value of `wanted`, or of `least` where all are smaller."""
    if got.shape != wanted.shape:
        return float("inf")
    got, wanted = got.detach().cpu().double(), wanted.detach().cpu().double()
    if not wanted.numel():
        return 0.0
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=least))


def largest(
    got: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], floor: float = 0.0
) -> tuple[float, str]:
    """Over all names: how far `apart` the farthest two are, and their name.

    Args:
        floor: tensors that are smaller than this share of the largest are measured by it: some gradients are zero.
    """
    assert got.keys() == wanted.keys()
    least = max(
        [1e-12, *(floor * float(value.detach().double().abs().max()) for value in wanted.values() if value.numel())]
    )
    return max(((apart(got[name], value, least), name) for name, value in wanted.items()), default=(0.0, ""))


@contextmanager
def full_float32(wanted: bool = True) -> Iterator[None]:
    """Matrices and convolutions are computed in float32, or (not `wanted`) in TF32, inside."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if wanted else "high")
    torch.backends.cudnn.allow_tf32 = not wanted
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def arithmetic(name: str, device: torch.device) -> AbstractContextManager:
    """Of `SHARES`: what is computed inside on `device` is computed so."""
    if name == "float32":
        return nullcontext()
    if name == "tf32":
        return full_float32(False)
    if name == "float16":
        skip_float16(device)
    return torch.autocast(device.type, dtype=getattr(torch, name))


def skip_float16(device: torch.device) -> None:
    """What stands in for a GPU computes the same comparison in bfloat16."""
    if device.type == "cpu":
        pytest.skip("a CPU takes minutes for a network's convolutions in float16")


def on(device: torch.device, model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy as a run has it on its device."""
    return copy.deepcopy(model).to(device, dtype).to(memory_format=torch.channels_last)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
