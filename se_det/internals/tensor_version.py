"""Whether a tensor still has the values that something was made of.

Uses: `torch.Tensor._version`, which counts changes in place. There from PyTorch 2.6, the lowest that the package runs
on, to 2.14.

Without: no two versions are ever equal, so that what is made of weights is made anew at every use, or not at all.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch


def tensor_version(tensor: torch.Tensor) -> Hashable:
    """Which values `tensor` has, for what is made of it: another after it was loaded, moved or cast.

    A change through `.data` is not seen, nor one of a tensor made in inference mode.
    """
    if not hasattr(torch.Tensor, "_version"):
        return object()
    return tensor.data_ptr(), tensor.dtype, None if tensor.is_inference() else tensor._version
