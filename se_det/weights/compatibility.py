"""What a network has to say to the weights that are loaded into it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..backbones.blocks import BasicBlock, Bottleneck, GatedBlock
from ..backbones.stem import BasicStem
from ..errors import WeightsError
from .families import WeightConventions, differences
from .reading import WeightFile


def check_network(model: nn.Module, file: WeightFile) -> None:
    """Refuse a network that has other strides, ReLUs or stem pooling than the weights were trained with.

    Every key and shape would match, and every feature would be wrong.

    Raises:
        WeightsError: naming the keys to set.
    """
    mine = network_conventions(model)
    wrong = differences(file.facts, mine)
    if not wrong:
        return
    settings = [
        f"MODEL.RESNETS.{name.upper()} {getattr(file.facts, name)} (it is {getattr(mine, name)})" for name in wrong
    ]
    raise WeightsError(
        f"{file.path} ({file.family}) would load, and every feature would be wrong: set {' and '.join(settings)}; in "
        f"Python they are the arguments {' and '.join(wrong)}."
    )


def network_conventions(model: nn.Module) -> WeightConventions:
    """What a network's trunk says of its strides, stem pooling and ReLUs; None for what it does not have."""
    stride = pool = relu = None
    for module in model.modules():
        if isinstance(module, BasicStem):
            pool = "ceil" if module.ceil_mode else "pad1"
        if isinstance(module, Bottleneck) and module.conv1.stride != module.conv2.stride:
            stride = module.conv1.stride[0] > 1
        if isinstance(module, BasicBlock):
            relu = module.branch_relu
    return WeightConventions(stride_in_1x1=stride, stem_pool=pool, branch_relu=relu)


def resize_gates(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Give the gates of `model` the hidden widths of `tensors` where these are rounded to a multiple of 8.

    timm rounds so in its networks of basic blocks; another width than that means another MODEL.GATE.REDUCTION, and is
    left to be refused.

    Returns:
        the names of the blocks whose gate was changed.
    """
    changed = []
    for name, block in model.named_modules():
        if not isinstance(block, GatedBlock) or block.gate is None:
            continue
        first = tensors.get(f"{name}.gate.fc1.weight" if name else "gate.fc1.weight")
        if first is None or len(first) == block.gate.hidden:
            continue
        if len(first) == rounded_to_8(block.gate.hidden):
            block.gate.resize_hidden(len(first))
            changed.append(name)
    return changed


def rounded_to_8(width: int) -> int:
    """The multiple of 8 nearest to `width`, and at least 8: the hidden widths of timm's SE-ResNets."""
    return max(8, (width + 4) // 8 * 8)
