"""What a process knows of the others: rank, world size, small gathers. One process needs no process group."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def is_distributed() -> bool:
    """Whether a process group is running."""
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if is_distributed() else 0


def get_world_size() -> int:
    """How many processes work on this run."""
    return dist.get_world_size() if is_distributed() else 1


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait for all processes."""
    if is_distributed():
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """`[value of get_rank 0, value of get_rank 1, ...]` on rank 0, an empty list elsewhere. For small plain objects."""
    if not is_distributed():
        return [value]
    values: list[Any] | None = [None] * get_world_size() if is_main_process() else None
    dist.gather_object(value, values, dst=0)
    return values or []


def broadcast_object(value: Any) -> Any:
    """Rank 0's `value`, on every rank."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the processes (the same on every rank)."""
    if is_distributed():
        dist.all_reduce(values)
        values /= get_world_size()
    return values
