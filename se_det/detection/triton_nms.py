"""Greedy NMS of many rows of boxes at once, as Triton kernels: torchvision's operator takes one, and waits for it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SIDE = 64  # boxes of a tile's side: one word of bits


@triton.jit
def _overlaps(boxes, words, length, tiles, threshold, SIDE: tl.constexpr):
    """Bit j of word (i, tile): box i overlaps the box j of that tile, which comes after it, by more than allowed."""
    row = tl.program_id(0).to(tl.int64)
    tile_i, tile_j = tl.program_id(1), tl.program_id(2)
    i = tile_i * SIDE + tl.arange(0, SIDE)
    j = tile_j * SIDE + tl.arange(0, SIDE)
    first = boxes + row * length * 4
    there_i, there_j = i < length, j < length
    left_i = tl.load(first + i * 4, mask=there_i, other=0.0)[:, None]
    top_i = tl.load(first + i * 4 + 1, mask=there_i, other=0.0)[:, None]
    right_i = tl.load(first + i * 4 + 2, mask=there_i, other=0.0)[:, None]
    bottom_i = tl.load(first + i * 4 + 3, mask=there_i, other=0.0)[:, None]
    left_j = tl.load(first + j * 4, mask=there_j, other=0.0)[None, :]
    top_j = tl.load(first + j * 4 + 1, mask=there_j, other=0.0)[None, :]
    right_j = tl.load(first + j * 4 + 2, mask=there_j, other=0.0)[None, :]
    bottom_j = tl.load(first + j * 4 + 3, mask=there_j, other=0.0)[None, :]
    width = tl.maximum(tl.minimum(right_i, right_j) - tl.maximum(left_i, left_j), 0.0)
    height = tl.maximum(tl.minimum(bottom_i, bottom_j) - tl.maximum(top_i, top_j), 0.0)
    shared = width * height
    area_i = (right_i - left_i) * (bottom_i - top_i)
    area_j = (right_j - left_j) * (bottom_j - top_j)
    over = (shared / (area_i + area_j - shared) > threshold) & (j[None, :] > i[:, None]) & there_j[None, :]
    bits = tl.sum(over.to(tl.int64) << tl.arange(0, SIDE).to(tl.int64)[None, :], 1)
    tl.store(words + (row * length + i) * tiles + tile_j, bits, mask=there_i)


@triton.jit
def _keep(words, valid, kept, length, tiles, SIDE: tl.constexpr, TILES: tl.constexpr):
    """From the best box on: whoever is still there stays, and takes away what it overlaps."""
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, TILES)
    gone = tl.zeros([TILES], tl.int64)
    for i in range(0, length):
        word = tl.sum(tl.where(tile == i // SIDE, gone, 0))
        stays = (((word >> (i % SIDE)) & 1) == 0) & (tl.load(valid + row * length + i) != 0)
        takes = tl.load(words + (row * length + i) * tiles + tile, mask=tile < tiles, other=0)
        gone = tl.where(stays, gone | takes, gone)
        tl.store(kept + row * length + i, stays.to(tl.uint8))


def nms_of_rows(boxes: torch.Tensor, valid: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which boxes greedy NMS keeps in each row, as torchvision's `nms` would of the row alone. Nothing is waited for.

    Args:
        boxes: float32 (R, K, 4), in each row the best first.
        valid: bool (R, K): the others are not there.
        threshold: IoU above which the later box goes.

    Returns:
        bool (R, K).
    """
    boxes, valid = boxes.float().contiguous(), valid.to(torch.uint8).contiguous()
    rows, length = valid.shape
    kept = torch.zeros_like(valid)
    if not valid.numel():
        return kept.bool()
    tiles = triton.cdiv(length, SIDE)
    words = torch.empty(rows, length, tiles, dtype=torch.int64, device=boxes.device)
    _overlaps[(rows, tiles, tiles)](boxes, words, length, tiles, threshold, SIDE=SIDE)
    _keep[(rows,)](words, valid, kept, length, tiles, SIDE=SIDE, TILES=triton.next_power_of_2(tiles))
    return kept.bool()
