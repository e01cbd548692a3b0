"""What exporting RoI heads takes, by the names of their classes."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from ...errors import ExportError
from ...internals.symbolic_size import at_least_one
from ...registry import Registry
from ..found import Found
from ..tensor_boxes import ANYTHING, rois_of

# By the class of RoI heads: features(head, pooled maps (n, C, R, R)) -> (n, F), what a stage's predictor reads.
BOX_FEATURES = Registry("exported RoI heads")

# By the class of a mask or keypoint head: build(heads) -> `GraphHead`, of the RoI heads that it is part of. It raises
# ExportError, with the reason, where it cannot be exported.
HEADS = Registry("exported head")


class GraphHead(Protocol):
    """What a head finds in detections.

    Attributes:
        output: its name among the outputs.
    """

    output: str

    def __call__(self, maps: list[torch.Tensor], found: Found) -> torch.Tensor:
        """(N, D, ...) of the RoI heads' maps and N images' detections, best first; anything where there is none."""
        ...


def graph_head(heads: nn.Module, head: nn.Module) -> GraphHead:
    """The entry for one of `heads`' parts.

    Raises:
        ExportError: there is none, or it refuses.
    """
    return entry(HEADS, head)(heads)


def entry(registry: Registry, module: nn.Module) -> Any:
    """What is registered for a module's class.

    Raises:
        ExportError: nothing is.
    """
    name = type(module).__name__
    if name not in registry.names():
        raise ExportError(
            f"A detector with {name} is not exported: {', '.join(registry.names())} are. Another kind is added to "
            f"se_det.export.heads, or its backbone alone is exported (--part backbone)."
        )
    return registry.get(name)


def present(found: Found) -> tuple[torch.Tensor, torch.Tensor]:
    """The detections that there are, and the first of all in any case, so that there is one: RoIs (n, 5) and where
    they are among all N D (n,)."""
    there = found.scores > ANYTHING
    rois = rois_of(found.boxes, there)
    first = torch.arange(rois.shape[0], device=rois.device) == 0
    at = (there.flatten() | first).nonzero()[:, 0]
    at_least_one(at.shape[0])
    return rois.index_select(0, at), at


def put_back(values: torch.Tensor, at: torch.Tensor, found: Found) -> torch.Tensor:
    """Values (n, ...) of detections at these places as (N, D, ...), 0 elsewhere."""
    whole = values.new_zeros(found.scores.shape[0] * found.scores.shape[1], *values.shape[1:])
    return whole.index_copy(0, at, values).unflatten(0, found.scores.shape)
