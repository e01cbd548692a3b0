"""One model in several processes: gradients averaged at every step, batch statistics agreed on before evaluations."""

from __future__ import annotations

import inspect

import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from .. import comm
from ..layers.norms import BATCH_NORMS
from ..layers.running_mean import running_means

# The newer name for the same wish; the older one warns where the newer one is known.
_KEYS = inspect.signature(DistributedDataParallel.__init__).parameters
_NO_SYNC_OF_BUFFERS = {"forward_sync_buffers" if "forward_sync_buffers" in _KEYS else "broadcast_buffers": False}


def wrap_distributed(model: nn.Module, *, fp16_compression: bool = False) -> nn.Module:
    """`model` as all processes train it together, from the first one's weights; alone, `model` itself.

    With `fp16_compression` gradients are exchanged in half precision: half as much to send, and rounded.
    Batch statistics are each process's own while training, as in Detectron2: see `broadcast_statistics`.
    """
    if comm.get_world_size() == 1:
        return model
    # Without device_ids samples are handed over as they are.
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True, **_NO_SYNC_OF_BUFFERS)
    if fp16_compression:
        wrapped.register_comm_hook(state=None, hook=fp16_compress_hook)
    return wrapped


def broadcast_statistics(model: nn.Module) -> None:
    """Give all processes the first one's batch statistics, those that a checkpoint holds."""
    if comm.get_world_size() == 1:
        return
    for module in model.modules():
        if isinstance(module, BATCH_NORMS) and module.track_running_stats:
            dist.broadcast(module.running_mean, src=0)
            dist.broadcast(module.running_var, src=0)
    for mean in running_means(model).values():
        dist.broadcast(mean.value, src=0)
