"""What of a detector is measured by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn


class MeasuredPart(NamedTuple):
    """A part of a detector whose cost is measured.

    Attributes:
        name: of its parameters.
        module: it.
        shapes: (N, ...) of the tensors that it reads.
        run: calls it with these tensors.
    """

    name: str
    module: nn.Module
    shapes: list[tuple[int, ...]]
    run: Callable[[list[torch.Tensor]], object]
