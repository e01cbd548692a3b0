"""Which memory a tensor is in, also on the meta device, where it has no address.

Uses: `torch.UntypedStorage._cdata`. There from PyTorch 2.6, the lowest that the package runs on, to 2.14.

Without: the Python object of the storage, which PyTorch keeps for as long as the storage itself.
"""

from __future__ import annotations

import torch


def storage_key(tensor: torch.Tensor) -> int:
    """A number that two tensors that exist now share when they share their memory."""
    storage = tensor.untyped_storage()
    return getattr(storage, "_cdata", None) or id(storage)
