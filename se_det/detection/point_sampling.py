"""Reading maps and masks at points, and choosing the points (PointRend: Kirillov et al., arXiv 1912.08193).

Points are (R, P, 2), x and y: of a box in shares of its sides, 0 to 1, or px of its image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F


def grid_points(count: int, side: int, like: torch.Tensor) -> torch.Tensor:
    """(count, side * side, 2): the centres of side x side cells of each box, row by row, in shares."""
    centre = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack([x, y], 2).view(1, -1, 2).expand(count, -1, -1)


def points_in_image(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Points in shares of boxes (R, 4) as px."""
    return points * (boxes[:, None, 2:] - boxes[:, None, :2]) + boxes[:, None, :2]


def sample_grid(values: torch.Tensor, points: torch.Tensor, *, border: bool = False) -> torch.Tensor:
    """Values (R, C, H, W) at points (R, P, 2) in shares of their extent, bilinear: (R, C, P).

    Args:
        border: what is beyond the outermost cells' centres is as they are; else it is 0, as in Detectron2.
    """
    mode = "border" if border else "zeros"
    return F.grid_sample(values, 2.0 * points[:, :, None] - 1.0, padding_mode=mode, align_corners=False)[..., 0]


def sample_maps(
    maps: Sequence[torch.Tensor],
    strides: Sequence[int],
    boxes: Sequence[torch.Tensor] | torch.Tensor,
    points: torch.Tensor,
    *,
    border: bool = False,
) -> torch.Tensor:
    """All maps at points of boxes, one after another: (R, C, P).

    Args:
        maps: (N, C, H, W) each.
        strides: px for a cell of each.
        boxes: (n, 4) of each image, R in all; or, in a graph that is exported, (N, n, 4).
        points: (R, P, 2), in shares of the boxes.
        border: see `sample_grid`.
    """
    if isinstance(boxes, torch.Tensor):
        return _sample_batch(maps, strides, boxes, points, border=border)
    at = points_in_image(points, torch.cat(list(boxes))).split([len(b) for b in boxes])
    found = []
    for x, stride in zip(maps, strides):
        extent = x.new_tensor([x.shape[3] * stride, x.shape[2] * stride])
        of_images = [
            sample_grid(x[image : image + 1], (px / extent).flatten(0, 1)[None], border=border)[0].unflatten(
                1, px.shape[:2]
            )
            for image, px in enumerate(at)
        ]
        found.append(torch.cat(of_images, 1).transpose(0, 1))
    return torch.cat(found, 1)


def _sample_batch(
    maps: Sequence[torch.Tensor], strides: Sequence[int], boxes: torch.Tensor, points: torch.Tensor, *, border: bool
) -> torch.Tensor:
    """`sample_maps` of as many boxes of every image (N, n, 4), without a loop over images, whose number is open."""
    x, y = points_in_image(points, boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2]).flatten(1, 2).unbind(2)
    found = []
    for each, stride in zip(maps, strides):
        shares = torch.stack([x / (each.shape[3] * stride), y / (each.shape[2] * stride)], 2)
        found.append(sample_grid(each, shares, border=border).unflatten(2, (-1, points.shape[1])).transpose(1, 2))
    return torch.cat(found, 2).flatten(0, 1)


def most_uncertain(logits: torch.Tensor, count: int) -> torch.Tensor:
    """int64 (R, count): the places among logits (R, P) that are nearest to 0."""
    return (-logits.abs()).topk(min(count, logits.shape[1]), dim=1).indices


def uncertain_points(logits: torch.Tensor, count: int, *, oversample: float, importance: float) -> torch.Tensor:
    """Points (R, count, 2) to train on (the paper's section 3.1): for a share of `importance` the most uncertain ones
    of `oversample` times as many that are drawn evenly, and others drawn anew.

    Args:
        logits: (R, M, M), read between the cells.
    """
    points = torch.rand(len(logits), int(count * oversample), 2, device=logits.device)
    found = sample_grid(logits[:, None], points)[:, 0]
    chosen = int(importance * count)
    at = most_uncertain(found, chosen)
    points = points.gather(1, at[..., None].expand(-1, -1, 2))
    if chosen < count:
        points = torch.cat([points, torch.rand(len(logits), count - chosen, 2, device=logits.device)], 1)
    return points


def whole_masks(masks: Mapping[str, torch.Tensor], count: int, height: int, width: int) -> dict[str, torch.Tensor]:
    """Ground-truth masks (see `masks`) with every instance's as one bitmap; polygons are drawn as COCO draws them."""
    drawn = np.zeros((count, height, width), np.uint8)
    for bitmap, owner in zip(masks["bitmaps"].cpu().numpy(), masks["bitmap_owner"].tolist()):
        drawn[owner] |= bitmap
    points = masks["polygon_points"].tolist()
    pieces = [part.ravel() for part in np.split(masks["polygons"].cpu().numpy(), np.cumsum(points))[:-1]]
    for piece, owner in zip(pieces, masks["polygon_owner"].tolist()):
        drawn[owner] |= coco_mask.decode(coco_mask.frPyObjects([piece], height, width))[..., 0]
    return {
        **{name: values[:0] for name, values in masks.items()},
        "bitmaps": torch.from_numpy(drawn),
        "bitmap_owner": torch.arange(count),
    }


def sample_bitmaps(bitmaps: torch.Tensor, owners: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """What `sample_grid` gives of bitmaps (g, H, W), each read by many boxes: (R, P), 0 to 1.

    Args:
        owners: (R,), the bitmap of each.
        points: (R, P, 2) px.
    """
    height, width = bitmaps.shape[1:]
    place = points / points.new_tensor([width, height])
    place = ((2.0 * place - 1.0 + 1.0) * points.new_tensor([width, height]) - 1.0) / 2.0
    low = place.floor()
    share = place - low
    result = points.new_zeros(points.shape[:2])
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = (low[..., 0] + dx).long(), (low[..., 1] + dy).long()
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            at = (owners[:, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
            value = bitmaps.reshape(-1)[at].to(result.dtype) * inside
            across, down = (part if d else 1 - part for part, d in zip(share.unbind(2), (dx, dy)))
            result += value * across * down
    return result
