"""Resizing within an exported graph: Pillow's antialiased bilinear filter as two products with matrices.

A resampled row is a weighted sum of the image's rows, so resizing is R image C^T. The weights are made in the graph
from the sizes. Those of Pillow are whole multiples of 2^-22, too fine for products in float32; in two halves of 11 bits
each, all products and sums are whole numbers that float32 holds exactly.
"""

from __future__ import annotations

import torch

HALF = 2**11  # of Pillow's fixed point, 2^22


def short_side_sizes(sizes: torch.Tensor, short_side: int, max_size: int) -> torch.Tensor:
    """`data.transforms.short_side_size` of each of (N, 2) int64 heights and widths: (N, 2) int64.

    In float64, operation by operation as there, since the order decides some roundings.
    """
    if short_side == 0:
        return sizes
    exact = sizes.double()
    shortest = exact.amin(1, keepdim=True)
    # Both numbers as tensors: a plain number over a tensor is multiplied by the reciprocal, which rounds twice.
    scale = torch.full_like(shortest, short_side) / shortest
    # A side as short as the shortest is `short_side` itself, whatever the product would be rounded to.
    new = torch.where(exact == shortest, float(short_side), exact * scale)
    longest = new.amax(1, keepdim=True)
    new = torch.where(longest > max_size, new * (torch.full_like(longest, max_size) / longest), new)
    return (new + 0.5).floor().long().clamp(min=1)


def resampling_weights(
    before: torch.Tensor, after: torch.Tensor, taps: int, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """How much each of `taps` pixels adds to each of `length` resampled ones: the upper and the lower half of Pillow's
    weights, float32 (N, length, taps) of whole numbers, of which `HALF` upper ones and `HALF` ** 2 lower ones make 1.

    Should the quotient be rounded to the next whole number, the rest is negative and the lower half makes up for it.

    Args:
        before, after: (N,) int64, the lengths of each image's side; what is beyond them has no weight.
    """
    before, after = before[:, None, None], after[:, None, None]
    tap = torch.arange(taps, device=before.device)
    pixel = torch.arange(length, device=before.device)[:, None]
    reach = 2 * torch.maximum(before, after)
    weights = (reach - ((2 * tap + 1) * after - (2 * pixel + 1) * before).abs()).clamp(min=0)
    weights = weights * ((tap < before) & (pixel < after)).long()
    total = weights.sum(2, keepdim=True).clamp(min=1)
    upper = (weights.float() * HALF / total.float()).floor()
    rest = weights * HALF - upper.long() * total
    return upper, (rest.float() / total.float() * HALF + 0.5).floor()


def resize(images: torch.Tensor, before: torch.Tensor, after: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize each image's own part as Pillow does, columns first, with whole grey levels after each pass. (From
    version 13 Pillow takes the rows of tall images first, which moves some pixels by one grey level.)

    Args:
        images: uint8 (N, H, W, 3).
        before, after: int64 (N, 2), heights and widths of the images' own parts and of what they become.
        height, width: of the result, in which they are at the top left.

    Returns:
        float32 (N, 3, height, width) of whole numbers, 0 beyond the images.
    """
    rows, columns = images.shape[1], images.shape[2]
    x = images.permute(0, 3, 1, 2).float().flatten(1, 2)
    upper, lower = resampling_weights(before[:, 1], after[:, 1], columns, width)
    x = _whole(torch.bmm(x, upper.mT), torch.bmm(x, lower.mT))
    x = x.unflatten(1, (3, rows)).transpose(1, 2).flatten(2)
    upper, lower = resampling_weights(before[:, 0], after[:, 0], rows, height)
    x = _whole(torch.bmm(upper, x), torch.bmm(lower, x))
    return x.unflatten(2, (3, width)).transpose(1, 2)


def _whole(upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """The nearest whole numbers of upper / HALF + lower / HALF^2, halves rounded up, without any rounding on the way:
    float32 holds the whole part, and the fraction, each exactly."""
    near = upper / HALF + 0.5
    whole = near.floor()
    return whole + (near - whole + lower / HALF**2).floor()
