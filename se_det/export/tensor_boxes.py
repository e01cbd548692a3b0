"""What the steps of a detector need where all sizes are tensors: clipping, choosing the best, pooling by level."""

from __future__ import annotations

import torch

from ..detection.pooler import ROIPooler

# The score of what is not there, and what all others are above. Not an infinity: compilers are told that there is none,
# and make of `x > -inf` what is always true.
NOTHING, ANYTHING = -1e30, -1e29


def clip_to(boxes: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Boxes (N, ..., 4) with coordinates inside [0, width] and [0, height] of each image's `sizes` (N, 2)."""
    limits = sizes.to(boxes.dtype).flip(1).repeat(1, 2).view(-1, *[1] * (boxes.ndim - 2), 4)
    return boxes.clamp(min=0).minimum(limits)


def select(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The rows (N, k, ...) of `values` (N, n, ...) at positions (N, k) in each image."""
    index = at.view(*at.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def best(scores: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `most` highest scores of each row (N, n) and where they are; filled up with `NOTHING` at 0."""
    count = scores.shape[1]
    if not isinstance(count, int) or count < most:
        scores = torch.cat([scores, scores.new_full((scores.shape[0], most), NOTHING)], 1)
    highest, at = scores.topk(most, 1)
    return highest, torch.where(highest > ANYTHING, at, 0)


def rois_of(boxes: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Boxes (N, n, 4) as RoIs (N n, 5) with their images' numbers; one px where `there` says that there is none."""
    pixel = boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    boxes = torch.where(there[..., None], boxes, pixel)
    image = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)[:, None, None]
    return torch.cat([image.expand(-1, boxes.shape[1], -1), boxes], 2).flatten(0, 1)


def pool(pooler: ROIPooler, maps: list[torch.Tensor], rois: torch.Tensor) -> torch.Tensor:
    """RoIs (n, 5), each from its own level: (n, C, R, R).

    The first is pooled from every level, so that no level has none: not every runtime takes an empty tensor.
    """
    if len(maps) == 1:
        return pooler._pool(maps[0], rois, pooler.strides[0])
    level = pooler.levels(rois[:, 1:])
    first = torch.arange(rois.shape[0], device=rois.device) == 0
    place, start, pieces = torch.zeros_like(level), level.new_zeros(1), []
    for number, (x, stride) in enumerate(zip(maps, pooler.strides)):
        own = level == number
        taken = own | first
        pieces.append(pooler._pool(x, rois.index_select(0, taken.nonzero()[:, 0]), stride))
        place = torch.where(own, start + taken.long().cumsum(0) - 1, place)
        start = start + taken.long().sum(0, keepdim=True)
    return torch.cat(pieces).index_select(0, place)
