"""Activation checkpointing: a block's inner maps are computed again in the backward pass in place of being kept."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..errors import ConfigError
from ..layers.activation_checkpointing import checkpointed
from .blocks import Stage


def checkpoint_activations(model: nn.Module) -> int:
    """Let every block of every stage below `model` keep only its input; returns how many blocks there are.

    Gradients and batch statistics are those of the model as it was.

    Raises:
        ConfigError: it has no stages of this package's.
    """
    blocks = [block for stage in model.modules() if isinstance(stage, Stage) for block in stage]
    if not blocks:
        raise ConfigError(
            "MODEL.CHECKPOINT_ACTIVATIONS is for this package's own backbones, and this is none of them: set it to "
            "False."
        )
    for block in blocks:
        block.forward = partial(checkpointed, block, block.forward)
    return len(blocks)
