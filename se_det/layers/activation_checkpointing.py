"""Computing a part of a network again in the backward pass, in place of keeping what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .norms import BATCH_NORMS


def checkpointed(module: nn.Module, function: Callable[..., torch.Tensor], *args: object) -> torch.Tensor:
    """`function(*args)`, of which only `args` are kept for the backward pass.

    Gradients and batch statistics are those of the plain call.

    Args:
        module: what `function` runs; the second pass leaves the statistics of its batch norms alone.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, context_fn=partial(_contexts, module))


def _contexts(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _frozen_statistics(module)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, (momentum, count) in zip(norms, before):
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(count)
