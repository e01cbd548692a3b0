"""Few words between processes that may no longer take part in collective operations.

Uses: `torch.distributed.distributed_c10d._get_default_store`, the process group's own key-value store. There from
PyTorch 2.6, the lowest that the package runs on, to 2.14.

Without: every process takes itself for the first, and an error of all is told by all.
"""

from __future__ import annotations

import torch.distributed as dist

KEY = "se_det_failures"


def is_first() -> bool:
    """Whether this process is the first that asks; each asks once, and none waits for another."""
    get_store = getattr(dist.distributed_c10d, "_get_default_store", None)
    if get_store is None:
        return True
    try:
        return get_store().add(KEY, 1) == 1
    except (RuntimeError, ValueError):  # the process that keeps the store is gone: it has told why
        return dist.get_rank() == 0
