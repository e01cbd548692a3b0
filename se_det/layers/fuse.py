"""A network made fast for inference, whatever it is part of."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import WeightsError
from ..internals import mkldnn
from .conv import Conv2d
from .deform_conv import DeformConv2d
from .norms import fold_norms
from .onednn import PackedConv2d
from .winograd import WinogradConv2d, supports_winograd


def fuse_for_inference(model: nn.Module, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Put `model` in evaluation mode and make it fast, in place; it cannot be trained or saved afterwards.

    Norms whose statistics are fixed go into their convolutions, and weights lie channels_last. On a CPU convolutions
    have what follows them inside, and those of 3 x 3 are computed by Winograd's method on large maps. Results equal the
    given model's up to the rounding of `dtype`.

    Args:
        model: on its device; moved to another one it is correct, and slower.
        dtype: of its weights, and so of what it takes.

    Raises:
        WeightsError: weights that are not finite, of which results would not tell.
    """
    model.eval().requires_grad_(False)
    fold_norms(model)
    for name, values in model.named_parameters():
        if not values.isfinite().all():
            raise WeightsError(
                f"The weights of {name} are not finite: the training that made them has diverged. Use an earlier "
                "checkpoint."
            )
    model.to(dtype).to(memory_format=torch.channels_last)
    if all(p.device.type == "cpu" for p in model.parameters()):
        pack_convolutions(model)
    return model


def pack_convolutions(model: nn.Module) -> None:
    """Have every convolution of ours in `model` that has no norm run by Winograd's method or as oneDNN does it best."""
    for conv in model.modules():
        if not isinstance(conv, Conv2d) or isinstance(conv, DeformConv2d) or conv.norm is not None:
            continue
        if supports_winograd(conv):
            conv.packed = WinogradConv2d(conv)
        elif mkldnn.is_available():
            conv.packed = PackedConv2d(conv)
