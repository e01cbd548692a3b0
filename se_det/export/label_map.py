"""Classes of pixels within an exported graph: each image's logits in its original size, and the highest."""

from __future__ import annotations

import torch
from torch.nn import functional as F

BEYOND = 255  # the class of what is beyond an image in its batch


def label_map(
    logits: torch.Tensor, resized: torch.Tensor, sizes: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """`sem_seg_head.resize_logits` of each image, and the class of each pixel: uint8 (N, height, width).

    Read point by point, as images of one batch become different sizes.

    Args:
        logits: (N, K, H, W).
        resized: (N, 2), the height and width of each image's own part of them.
        sizes: (N, 2), what that becomes.
        height, width: of the result, in which they are at the top left.
    """
    y = _places(height, resized[:, 0], sizes[:, 0], logits.shape[2])
    x = _places(width, resized[:, 1], sizes[:, 1], logits.shape[3])
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], 3)
    read = F.grid_sample(logits, grid, padding_mode="border", align_corners=False)
    rows, columns = (torch.arange(side, device=grid.device) for side in (height, width))
    inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None]
    return torch.where(inside, read.argmax(1), BEYOND).to(torch.uint8)


def _places(length: int, before: torch.Tensor, after: torch.Tensor, cells: int) -> torch.Tensor:
    """Where each of `length` pixels is read, (N, length): -1 and 1 are the ends of `cells` cells, of which `before` are
    an image's own and become `after` pixels."""
    place = torch.arange(length, device=before.device) + 0.5
    source = place * (before.float() / after.float())[:, None] - 0.5
    source = source.clamp(min=0).minimum(before[:, None] - 1.0)
    return (2 * source + 1) / cells - 1
