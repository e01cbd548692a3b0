"""Parameters, multiply-adds and memory of a network, counted on PyTorch's meta device.

Conventions:

- Multiply-adds: one for each multiplication with a weight in convolutions (deformable ones too) and linear layers, and
  in matrix products and attention; for one image. Norms, activations, pooling, additions, the gates' scaling and
  biases are not counted, as in the papers.
- Parameter memory: parameters and buffers, in their own dtypes.
- Training memory: what autograd saves in the forward pass of one image, each tensor once, without weights. It grows
  with the batch; gradients, optimizer state and workspaces are not counted.
- Inference memory: the peak of live tensors in the forward pass of one image, without weights and workspaces.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ..internals.dispatch import each_result
from ..internals.storage_identity import storage_key

Forward = Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Cost:
    """Cost of one image."""

    parameters: int
    multiply_adds: int
    parameter_bytes: int
    training_bytes: int
    inference_bytes: int

    def as_dict(self) -> dict[str, int]:
        """The fields by name."""
        return asdict(self)


def measure(model: nn.Module, shape: tuple[int, ...], *, forward: Forward | None = None) -> Cost:
    """Measure `model`, which is moved to the meta device (its values are lost) and left in evaluation mode.

    Args:
        model: any network.
        shape: input shape of one image, without the batch: (3, H, W).
        forward: called with a batch (N, *shape); the model by default.
    """
    model.to("meta")
    forward = forward or model
    model.train()
    # Batch norms refuse one value per channel, and what is kept once per batch is not an image's: so 3 less 2.
    training = saved_bytes(forward, _blank(3, shape), model) - saved_bytes(forward, _blank(2, shape), model)
    with torch.no_grad():
        # Also in training mode, where batch norms do not let a squeeze be taken through the convolution before it
        # (layers/folding.py), which multiplies a little more than the papers' formula does.
        multiply_adds = count_multiply_adds(forward, _blank(2, shape)) // 2
        model.eval()
        inference = peak_bytes(forward, _blank(1, shape))
    tensors = [*model.parameters(), *model.buffers()]
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=multiply_adds,
        parameter_bytes=sum(t.numel() * t.element_size() for t in tensors),
        training_bytes=training,
        inference_bytes=inference,
    )


def _blank(images: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(images, *shape, device="meta")


def count_multiply_adds(forward: Forward, x: torch.Tensor) -> int:
    """Count the multiply-adds of `forward(x)`."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deformable_flops})
    with counter:
        forward(x)
    return counter.get_total_flops() // 2  # PyTorch counts a multiplication and an addition


def _deformable_flops(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """As of a plain convolution: the points' interpolation is not counted."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def saved_bytes(forward: Forward, x: torch.Tensor, model: nn.Module) -> int:
    """Bytes that automatic differentiation keeps of `forward(x)`, without the weights of `model`."""
    weights = {storage_key(t) for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}  # the tensors themselves, so that no storage's number is used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if storage_key(tensor) not in weights:
            kept.setdefault(storage_key(tensor), tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(x)
    return sum(t.untyped_storage().nbytes() for t in kept.values())


def peak_bytes(forward: Forward, x: torch.Tensor) -> int:
    """The most bytes of tensors that exist at once in `forward(x)`, `x` among them."""
    tracker = _LiveTensors()
    tracker.note(x)
    with each_result(tracker.note):
        forward(x)
    return tracker.peak


class _LiveTensors:
    """Adds up the storages of the tensors it is told of, for as long as a tensor refers to them."""

    def __init__(self) -> None:
        self.peak = 0
        self._now = 0
        self._references: dict[int, int] = {}

    def note(self, tensor: torch.Tensor) -> None:
        """Count a tensor until it is gone."""
        key, size = storage_key(tensor), tensor.untyped_storage().nbytes()
        if key not in self._references:
            self._references[key] = 0
            self._now += size
            self.peak = max(self.peak, self._now)
        self._references[key] += 1
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._references[key] -= 1
        if self._references[key] == 0:
            del self._references[key]
            self._now -= size
