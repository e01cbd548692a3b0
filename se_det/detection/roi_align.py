"""RoIAlign (He et al., arXiv 1703.06870, section 3), aligned: on a CPU many times as fast as torchvision's operator.

Each output cell is a weighted sum of the map's cells around it. On a map whose channels lie together (channels last)
that is a weighted sum of rows of a table, which PyTorch's embedding bags do with wide instructions on all cores,
forward and backward. A sample between four cells has the product of a weight for the row and one for the column, so the
samples of one output cell together have one weight for each row and column that they touch.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchvision import ops

from ..layers.tracing import is_traced

# Weights of a call are built for boxes whose windows round up to the same numbers of rows and columns.
WINDOWS = (2, 3, 4, 6, 8, 12, 16, 24, 32)


def roi_align(x: torch.Tensor, rois: torch.Tensor, size: int, scale: float, sampling_ratio: int = 0) -> torch.Tensor:
    """What torchvision's `roi_align(..., aligned=True)` returns, up to rounding.

    Args:
        x: (N, C, H, W); fastest on a CPU in channels_last.
        rois: (n, 5): the image's number, then a box XYXY in px.
        size: cells a side of the result.
        scale: cells of the map per px.
        sampling_ratio: samples per output cell and side; 0 takes one for each cell of the map, rounded up.

    Returns:
        (n, C, size, size).
    """
    if x.device.type != "cpu" or is_traced() or x.dtype == torch.float16:
        return ops.roi_align(x, rois, size, scale, sampling_ratio, aligned=True)
    _, channels, height, width = x.shape
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    boxes = rois[:, 1:].detach() * scale - 0.5
    first_row, rows = _axis(boxes[:, 1], boxes[:, 3], height, size, sampling_ratio)
    first_column, columns = _axis(boxes[:, 0], boxes[:, 2], width, size, sampling_ratio)
    first_row = first_row + (rois[:, 0].long() * height)[:, None]
    order, cells, weights, counts = [], [], [], []
    for chosen, tall, wide in _windows(rows, columns):
        order.append(chosen)
        weight = rows[chosen, :, None, :tall, None] * columns[chosen, None, :, None, :wide]
        at_row = first_row[chosen, :, None] + torch.arange(tall)
        at_column = first_column[chosen, :, None] + torch.arange(wide)
        cell = (at_row[:, :, None, :, None] * width + at_column[:, None, :, None, :]).expand(weight.shape)
        used = weight != 0  # beyond the map, too, there is no weight
        counts.append(used.flatten(3).sum(3).flatten())
        used = used.flatten().nonzero().flatten()
        cells.append(cell.reshape(-1)[used])
        weights.append(weight.flatten()[used].to(table.dtype))
    if not order:
        return x.new_zeros(0, channels, size, size)
    # One call for all: in the backward pass each would fill a table of its own.
    ends = torch.cat(counts).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    cells, weights = torch.cat(cells), torch.cat(weights)
    if not len(cells):  # no box meets the map
        return x.new_zeros(len(rois), channels, size, size)
    pooled = F.embedding_bag(cells, table, starts, mode="sum", per_sample_weights=weights)
    pooled = pooled.view(len(rois), size, size, channels)
    if len(order) > 1:
        pooled = pooled[torch.cat(order).argsort()]
    return pooled.permute(0, 3, 1, 2)


def _axis(
    low: torch.Tensor, high: torch.Tensor, length: int, size: int, sampling_ratio: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One side of every box: where the window of each output cell begins, and the weights in it.

    Args:
        low, high: (n,) in cells of the map, whose centres are at 0 .. length - 1.

    Returns:
        (n, size) int64 and (n, size, window); the weights of an output cell sum to the share of its samples that
        lie on the map.
    """
    step = (high - low) / size
    samples = step.ceil() if sampling_ratio == 0 else torch.full_like(step, sampling_ratio)
    most = max(int(samples.max()), 1) if len(samples) else 1
    divisor = samples.clamp(min=1)[:, None, None]
    number = torch.arange(most, dtype=low.dtype)
    cell = torch.arange(size, dtype=low.dtype)[:, None]
    position = low[:, None, None] + cell * step[:, None, None] + (number + 0.5) * (step[:, None, None] / divisor)
    counts = (number < samples[:, None, None]) & (position >= -1) & (position <= length)
    position = position.clamp(min=0)
    below = position.floor().clamp(max=length - 1)
    share = torch.where(below >= length - 1, 0.0, position - below)
    weight = counts / divisor
    first = torch.where(counts, below, length - 1.0).amin(2)
    offset = torch.where(counts, below - first[..., None], 0.0).long()
    weights = low.new_zeros(*first.shape, int(offset.max()) + 2 if len(low) else 2)
    weights.scatter_add_(2, offset, weight * (1 - share))
    weights.scatter_add_(2, offset + 1, weight * share)
    return first.long(), weights


def _windows(rows: torch.Tensor, columns: torch.Tensor) -> list[tuple[torch.Tensor, int, int]]:
    """Boxes of like windows together: (their numbers, rows, columns), so that long boxes do not widen all others."""
    sizes = torch.tensor(WINDOWS)

    def needed(weights: torch.Tensor) -> torch.Tensor:
        reach = torch.arange(1, weights.shape[2] + 1)
        return ((weights != 0) * reach).amax((1, 2)) if len(weights) else reach[:0]

    tall, wide = needed(rows), needed(columns)
    key = torch.bucketize(tall, sizes) * (len(sizes) + 1) + torch.bucketize(wide, sizes)
    groups = []
    for value in key.unique().tolist():
        chosen = (key == value).nonzero().flatten()
        groups.append((chosen, int(tall[chosen].max()), int(wide[chosen].max())))
    return groups
