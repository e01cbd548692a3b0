"""Keypoints of instances: cells of a box's heat map for the loss, places in the image for the result.

A keypoint is x, y px and v: 0 not labelled, 1 labelled but hidden, 2 seen. Cells and places are converted as Heckbert
("What are the coordinates of a pixel?", 1990) and Detectron2 do: a cell d covers [d, d + 1), its centre is d + 0.5.
"""

from __future__ import annotations

import torch

BYTES_AT_ONCE = 256 * 2**20  # of heat maps in the size of their boxes, on a device that likes few large steps
CUBIC = -0.75  # the coefficient of torch.nn.functional.interpolate's bicubic kernel


def labelled_inside(keypoints: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """bool (n, K): which keypoints (n, K, 3) are labelled and in their box (n, 4), edges included."""
    xy, low, high = keypoints[..., :2], boxes[:, None, :2], boxes[:, None, 2:]
    return (keypoints[..., 2] > 0) & ((xy >= low) & (xy <= high)).all(2)


def heatmap_cells(keypoints: torch.Tensor, boxes: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The cell of a box's heat map that each keypoint is in.

    Args:
        keypoints: (n, K, 3).
        boxes: (n, 4), with an area.
        side: cells a side.

    Returns:
        int64 (n, K), row by row from 0, and bool (n, K), whether the keypoint is labelled and inside; 0 where not.
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    xy = keypoints[..., :2]
    cell = ((xy - low) * (side / (high - low))).floor().long()
    cell = torch.where(xy == high, side - 1, cell)  # the far edge belongs to the last cell
    valid = ((cell >= 0) & (cell < side)).all(2) & (keypoints[..., 2] > 0)
    return torch.where(valid, cell[..., 1] * side + cell[..., 0], 0), valid


def heatmaps_to_keypoints(maps: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """The highest place of each heat map, enlarged bicubically to whole px of its box.

    Args:
        maps: (n, K, S, S) logits.
        boxes: (n, 4) px.

    Returns:
        (n, K, 3): x, y px, and the score: the softmax there, normalised over the S x S cells so that it does not depend
        on the box's size.
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    count, kinds = maps.shape[:2]
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    whole = sides.ceil()
    result = maps.new_zeros(count, kinds, 3)
    limits = whole.long().tolist()
    # On a CPU box by box, so that none is padded; elsewhere those of similar size together.
    order = sorted(range(count), key=lambda at: limits[at]) if maps.device.type != "cpu" else range(count)
    start = 0
    while start < count:
        at = _together(list(order[start:]), limits, kinds, maps.device)
        start += len(at)
        width, height = (max(limits[one][axis] for one in at) for axis in (0, 1))
        columns = _bicubic(whole[at, 0], width, maps)
        rows = _bicubic(whole[at, 1], height, maps)
        large = rows[:, None] @ (maps[at] @ columns[:, None].transpose(2, 3))  # (b, K, height, width)
        if len(at) > 1:
            outside = (torch.arange(height, device=maps.device) >= whole[at, 1, None])[:, :, None]
            outside = outside | (torch.arange(width, device=maps.device) >= whole[at, 0, None])[:, None, :]
            large = large.masked_fill(outside[:, None], -torch.inf)
        best, place = large.flatten(2).max(2)
        x, y = place % width, torch.div(place, width, rounding_mode="floor")
        xy = (torch.stack([x, y], 2) + 0.5) * (sides[at] / whole[at])[:, None] + boxes[at, None, :2]
        score = 1 / (maps[at] - best[..., None, None]).exp().sum((2, 3))
        result[at] = torch.cat([xy, score[..., None]], 2)
    return result


def _together(waiting: list[int], limits: list[list[int]], kinds: int, device: torch.device) -> list[int]:
    """The first of `waiting` whose heat maps are enlarged in one step."""
    if device.type == "cpu":
        return waiting[:1]
    for count in range(1, len(waiting)):
        width, height = (max(limits[one][axis] for one in waiting[: count + 1]) for axis in (0, 1))
        if 4 * (count + 1) * kinds * width * height > BYTES_AT_ONCE:
            return waiting[:count]
    return waiting


def _bicubic(lengths: torch.Tensor, longest: int, maps: torch.Tensor) -> torch.Tensor:
    """(b, longest, S): how much each of S cells adds to each place when S cells become `lengths` (b,) places."""
    side = maps.shape[-1]
    place = torch.arange(longest, device=maps.device, dtype=maps.dtype)
    source = (place + 0.5) * (side / lengths.to(maps.dtype))[:, None] - 0.5
    first = source.floor()
    offset = source - first
    result = maps.new_zeros(len(lengths), longest, side)
    for step in (-1, 0, 1, 2):
        cell = (first + step).clamp(0, side - 1).long()  # the border's cells go on beyond it
        result.scatter_add_(2, cell[..., None], cubic_kernel((offset - step).abs())[..., None])
    return result


def cubic_kernel(distance: torch.Tensor) -> torch.Tensor:
    """Keys' cubic convolution kernel (IEEE TASSP 29(6), 1981), equation 15 with another coefficient."""
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
