"""Whether a module's hooks see, and may keep, what goes in and comes out.

Uses: `torch.nn.Module._forward_hooks` and `._forward_pre_hooks`, and the dictionaries of hooks of all modules in
`torch.nn.modules.module`. There from PyTorch 2.6, the lowest that the package runs on, to 2.14.

Without: every module counts as observed, and inference writes no map over another that it is done with.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as modules


def is_observed(module: nn.Module) -> bool:
    """Whether a hook is called before or after the module's `forward`."""
    try:
        return bool(
            module._forward_hooks or module._forward_pre_hooks
            or modules._global_forward_hooks or modules._global_forward_pre_hooks
        )  # fmt: skip
    except AttributeError:
        return True
