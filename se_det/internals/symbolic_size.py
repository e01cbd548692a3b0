"""A number that only a run of an exported graph knows, as a size of its tensors.

Uses: `torch._check`, which tells the exporter between what the number lies. There from PyTorch 2.6, the lowest that the
package runs on, to 2.14.

Without: the number is used as it is, and an export that needs to know fails with the exporter's own words.
"""

from __future__ import annotations

import torch


def as_size(value: torch.Tensor) -> int:
    """The one whole number in `value`, from 1 to 65536."""
    size = value.item()
    if not isinstance(size, int) and hasattr(torch, "_check"):
        torch._check(size >= 1)
        torch._check(size <= 2**16)
    return size


def at_least_one(size: int) -> None:
    """Tell the exporter that a size which only a run knows is not 0, and no more than 16 million: what it derives of
    a size without bounds can be more than 64 bits hold."""
    if not isinstance(size, int) and hasattr(torch, "_check"):
        torch._check(size >= 1)
        torch._check(size <= 2**24)
