"""A tensor made in memory that other processes can map, as torch's own collation in workers does.

Uses: `torch.UntypedStorage._new_shared`. There from PyTorch 2.6, the lowest that the package runs on, to 2.14.

Without: the tensor is in this process's memory, and is copied into shared memory on its way to another process.
"""

from __future__ import annotations

import torch


def empty_shared(size: int) -> torch.Tensor:
    """An empty uint8 tensor with room for `size` bytes, for `resize_`."""
    tensor = torch.empty(0, dtype=torch.uint8)
    new_shared = getattr(torch.UntypedStorage, "_new_shared", None)
    if new_shared is not None:
        tensor.set_(new_shared(size))
    return tensor.resize_(0)
