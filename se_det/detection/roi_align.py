"""RoIAlign (He et al., arXiv 1703.06870, section 3), aligned: on a CPU many times as fast as torchvision's operator.

Each output cell is a weighted sum of the map's cells around it. On a map whose channels lie together (channels last)
that is a weighted sum of rows of a table, which PyTorch's embedding bags do with wide instructions on all cores,
forward and backward. A sample between four cells has the product of a weight for the row and one for the column, so the
samples of one output cell together have one weight for each row and column that they touch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ..layers.tracing import is_traced
from . import operators

# Weights of a call are built for boxes whose windows round up to the same numbers of rows and columns.
WINDOWS = (2, 3, 4, 6, 8, 12, 16, 24, 32)


def roi_align(
    x: torch.Tensor, rois: torch.Tensor, size: int, scale: float, sampling_ratio: int = 0, *, aligned: bool = True
) -> torch.Tensor:
    """What torchvision's `roi_align` returns, up to rounding.

    Args:
        x: (N, C, H, W); fastest on a CPU in channels_last.
        rois: (n, 5): the image's number, then a box XYXY in px.
        size: cells a side of the result.
        scale: cells of the map per px.
        sampling_ratio: samples per output cell and side; 0 takes one for each cell of the map, rounded up.
        aligned: cells' centres are half a cell from their corners, as pixels' are; False is the first version's
            offset, and widens boxes of less than a cell to one.

    Returns:
        (n, C, size, size).
    """
    if not has_fast_path(x):
        return operators.roi_align(x, rois, size, scale, sampling_ratio, aligned=aligned)
    level = torch.zeros(len(rois), dtype=torch.long)
    return pyramid_roi_align([x], rois, level, size, [scale], sampling_ratio, aligned=aligned)


def has_fast_path(x: torch.Tensor) -> bool:
    """Whether maps like `x` are pooled here, not by torchvision."""
    return x.device.type == "cpu" and not is_traced() and x.dtype != torch.float16


def pyramid_roi_align(
    maps: Sequence[torch.Tensor], rois: torch.Tensor, level: torch.Tensor, size: int, scales: Sequence[float],
    sampling_ratio: int = 0, *, aligned: bool = True,
) -> torch.Tensor:  # fmt: skip
    """`roi_align` of each box on its own map, for maps that it `has_fast_path` of.

    Args:
        maps: (N, C, H, W) of each level.
        level: (n,) int64, the number of each box's map.
        scales: cells per px of each map.
    """
    heights, widths = (torch.tensor([x.shape[side] for x in maps])[level] for side in (2, 3))
    boxes = rois[:, 1:].detach() * rois.new_tensor(scales)[level, None]
    if aligned:
        boxes = boxes - 0.5
    else:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:].maximum(boxes[:, :2] + 1)], 1)
    first_row, rows = _axis(boxes[:, 1], boxes[:, 3], heights, size, sampling_ratio)
    first_column, columns = _axis(boxes[:, 0], boxes[:, 2], widths, size, sampling_ratio)
    first_row = first_row + (rois[:, 0].long() * heights)[:, None]
    order, groups = _windows(level, rows, columns)
    first_row, rows, first_column, columns = (v[order] for v in (first_row, rows, first_column, columns))
    at: list[list[torch.Tensor]] = [[] for _ in maps]
    by: list[list[torch.Tensor]] = [[] for _ in maps]
    counts: list[list[torch.Tensor]] = [[] for _ in maps]
    for number, part, tall, wide in groups:
        weights = rows[part, :, None, :tall, None] * columns[part, None, :, None, :wide]
        at_row = (first_row[part, :, None] + torch.arange(tall)) * maps[number].shape[3]
        at_column = first_column[part, :, None] + torch.arange(wide)
        cells = at_row[:, :, None, :, None] + at_column[:, None, :, None, :]
        used = weights != 0  # beyond the map, too, there is no weight
        counts[number].append(used.sum((3, 4)).flatten())
        at[number].append(cells[used])
        by[number].append(weights[used])
    pooled = [
        _sums(x, torch.cat(a), torch.cat(b), torch.cat(c)) for x, a, b, c in zip(maps, at, by, counts) if c
    ]  # fmt: skip
    if not pooled:
        return maps[0].new_zeros(0, maps[0].shape[1], size, size)
    result = torch.cat(pooled) if len(pooled) > 1 else pooled[0]
    result = result.view(len(rois), -1)
    if len(groups) > 1:
        result = result.index_select(0, order.argsort())
    return result.view(len(rois), size, size, -1).permute(0, 3, 1, 2)


def _sums(x: torch.Tensor, cells: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(k, C): of the first `counts[0]` weighted cells of `x` the sum, then of the next `counts[1]`, and so on."""
    channels = x.shape[1]
    if not len(cells):  # no box meets the map
        return x.new_zeros(len(counts), channels)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    starts = counts.cumsum(0) - counts
    return F.embedding_bag(cells, table, starts, mode="sum", per_sample_weights=weights.to(table.dtype))


def _axis(
    low: torch.Tensor, high: torch.Tensor, length: torch.Tensor, size: int, sampling_ratio: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One side of every box: where the window of each output cell begins, and the weights in it.

    Args:
        low, high: (n,) in cells of the map, whose centres are at 0 .. length - 1.
        length: (n,) of each box's map.

    Returns:
        (n, size) int64 and (n, size, window); the weights of an output cell sum to the share of its samples that
        lie on the map.
    """
    step = (high - low) / size
    samples = step.ceil() if sampling_ratio == 0 else torch.full_like(step, sampling_ratio)
    most = max(int(samples.max()), 1) if len(samples) else 1
    divisor = samples.clamp(min=1)[:, None, None]
    length = length.to(low.dtype)[:, None, None]
    number = torch.arange(most, dtype=low.dtype)
    cell = torch.arange(size, dtype=low.dtype)[:, None]
    position = low[:, None, None] + cell * step[:, None, None] + (number + 0.5) * (step[:, None, None] / divisor)
    counts = (number < samples[:, None, None]) & (position >= -1) & (position <= length)
    position = position.clamp(min=0)
    below = position.floor().minimum(length - 1)
    share = torch.where(below >= length - 1, 0.0, position - below)
    weight = counts / divisor
    first = torch.where(counts, below, length - 1).amin(2)
    offset = torch.where(counts, below - first[..., None], 0.0).long()
    weights = low.new_zeros(*first.shape, int(offset.max()) + 2 if len(low) else 2)
    weights.scatter_add_(2, offset, weight * (1 - share))
    weights.scatter_add_(2, offset + 1, weight * share)
    return first.long(), weights


def _windows(
    level: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[int, slice, int, int]]]:
    """Boxes of one map and like windows together, so that long boxes do not widen all others.

    Returns:
        The boxes' numbers, sorted by map and window; and (map, which of the sorted ones, rows, columns) of each group.
    """
    sizes = torch.tensor(WINDOWS)

    def needed(weights: torch.Tensor) -> torch.Tensor:
        reach = torch.arange(1, weights.shape[2] + 1)
        return ((weights != 0) * reach).amax((1, 2)) if len(weights) else reach[:0]

    tall, wide = needed(rows), needed(columns)
    classes = len(sizes) + 1
    key = (level * classes + torch.bucketize(tall, sizes)) * classes + torch.bucketize(wide, sizes)
    key, order = key.sort(stable=True)
    keys, counts = (v.tolist() for v in key.unique_consecutive(return_counts=True))
    tall, wide = tall[order].tolist(), wide[order].tolist()
    groups, start = [], 0
    for value, count in zip(keys, counts):
        part = slice(start, start + count)
        groups.append((value // classes**2, part, max(tall[part]), max(wide[part])))
        start += count
    return order, groups
