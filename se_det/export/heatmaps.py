"""The highest place of heat maps within an exported graph: `detection.keypoints.heatmaps_to_keypoints` without a loop.

Enlarged to its box a heat map can have a million px, too many for all boxes at once. But between four by four cells the
bicubic surface is at most `OVERSHOOT` of their range above the highest of them, so most patches of the surface cannot
hold the highest place: only those that can are enlarged.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..detection.keypoints import cubic_kernel
from ..internals.symbolic_size import as_size
from .tensor_boxes import NOTHING

# The kernel's negative weights add up to at most 3/16 in a row (at its middle, with the coefficient -3/4), so that the
# absolute values of weights of 4 x 4 cells add up to at most (11/8)^2; the negative ones are this part of them.
OVERSHOOT = ((11 / 8) ** 2 - 1) / 2
ROUNDING = 1e-6  # a patch that is higher by less is as high
FAR = 46340  # more than a side has px; its square is a number of 32 bits, and OpenVINO has no longer ones


def highest_places(maps: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """See `heatmaps_to_keypoints`.

    Args:
        maps: (n, K, S, S) logits, n and K at least 1.
        boxes: (n, 4) px.
    """
    count, kinds, side = maps.shape[:3]
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    whole = sides.ceil()
    padded = F.pad(maps, (2, 2, 2, 2), mode="replicate")  # a patch before the first cell, and one after the last
    candidate = _candidates(maps, padded, whole).flatten().nonzero()[:, 0]
    patches = side + 1
    of_map, row, column = candidate // patches**2, candidate // patches % patches, candidate % patches
    of_box = of_map // kinds
    # Each candidate's 4 x 4 cells, and the px of its box that lie between the middle two.
    step = torch.arange(4, device=maps.device)
    cells = ((of_map * (side + 4) + row)[:, None] + step)[:, :, None] * (side + 4) + (column[:, None] + step)[:, None]
    values = padded.flatten().index_select(0, cells.flatten()).view(-1, 4, 4)
    longest = as_size((whole.flatten().amax(0) / side).floor().long() + 3)
    x, across, in_x = _pixels(column, whole[:, 0].index_select(0, of_box), side, longest)
    y, down, in_y = _pixels(row, whole[:, 1].index_select(0, of_box), side, longest)
    large = torch.bmm(torch.bmm(down, values), across.mT)
    large = torch.where(in_y[:, :, None] & in_x[:, None, :], large, NOTHING)
    of_row, at_x = large.max(2)
    high, at_y = of_row.max(1, keepdim=True)
    number = (y.gather(1, at_y) * FAR + x.gather(1, at_x.gather(1, at_y)))[:, 0]
    high = high[:, 0]
    # Of each map the highest, and of equal ones the first row by row.
    best = maps.new_full((count * kinds,), NOTHING).scatter_reduce(0, of_map, high, "amax")
    number = torch.where(high == best.index_select(0, of_map), number, FAR**2)
    first = number.new_full((count * kinds,), FAR**2).scatter_reduce(0, of_map, number, "amin").view(count, kinds)
    best = best.view(count, kinds)
    xy = (torch.stack([first % FAR, first // FAR], 2).to(maps.dtype) + 0.5) * (sides / whole)[:, None]
    score = 1 / (maps - best[..., None, None]).exp().sum((2, 3))
    return torch.cat([xy + boxes[:, None, :2], score[..., None]], 2)


def _candidates(maps: torch.Tensor, padded: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """bool (n, K, S + 1, S + 1): the patches that may be higher than the px nearest to the cells' centres, and the one
    where the highest of these is."""
    kinds, side = maps.shape[1:3]
    cell = torch.arange(side, device=maps.device)
    nearest = [((cell + 0.5) * (length / side)[:, None]).floor().minimum(length[:, None] - 1) for length in whole.mT]
    (left, across), (top, down) = (
        _weights(place, length, side) for place, length in zip(nearest, whole.mT, strict=True)
    )
    across, down = (_dense(first, weights) for first, weights in ((left, across), (top, down)))
    rows = torch.bmm(maps.flatten(1, 2), across.mT).unflatten(1, (kinds, side))
    seen = torch.bmm(down, rows.transpose(1, 2).flatten(2)).unflatten(2, (kinds, side)).transpose(1, 2)
    highest, at = seen.flatten(2).max(2)
    patch = torch.arange(side + 1, device=maps.device)
    row, column = ((first + 1).gather(1, place) for first, place in ((top, at // side), (left, at % side)))
    here = (patch == row[..., None])[..., :, None] & (patch == column[..., None])[..., None, :]
    upper, lower = F.max_pool2d(padded, 4, 1), -F.max_pool2d(-padded, 4, 1)
    limit = highest + ROUNDING * highest.abs()
    return here | (upper + OVERSHOOT * (upper - lower) > limit[..., None, None])


def _weights(place: torch.Tensor, length: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The cell (b, p) at or before each place (b, p) when `side` cells become `length` (b,) px, from -1, and the
    weights (b, p, 4) of the one before it, of it, and of two after."""
    source = (place + 0.5) * (torch.full_like(length, side) / length)[:, None] - 0.5
    first = source.floor()
    step = torch.arange(-1, 3, device=place.device)
    return first.long(), cubic_kernel(((source - first)[..., None] - step).abs())


def _dense(first: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`_weights` of as many places as cells as matrices (b, S, S); the border's cells go on beyond it."""
    side = first.shape[1]
    cells = (first[..., None] + torch.arange(-1, 3, device=first.device)).clamp(0, side - 1)
    one_hot = cells[..., None] == torch.arange(side, device=first.device)
    return torch.where(one_hot, weights[..., None], 0.0).sum(2)


def _pixels(
    patch: torch.Tensor, length: torch.Tensor, side: int, longest: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The px of each patch (c,) along one side: which (c, p), their weights (c, p, 4), and which of them are in it."""
    start = ((patch - 0.5) * (length / side) - 0.5).ceil() - 1
    place = start[:, None] + torch.arange(longest, device=patch.device)
    first, weights = _weights(place, length, side)
    inside = (first == patch[:, None] - 1) & (place >= 0) & (place < length[:, None])
    return place.long(), weights, inside
