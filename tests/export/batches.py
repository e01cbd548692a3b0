"""Images of many sizes in batches, as PyTorch's detector and as an exported one take them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from se_det.data.transforms import resize_image, short_side_size, to_tensor

from .tiny import LONG, SHORT

# Of images (height, width) in batches. None is much taller than wide: see `resize`.
FEW = [[(70, 90)], [(96, 128), (40, 90), (1, 1)]]
MANY = [
    [(1, 1)], [(64, 64)], [(480, 640)], [(20, 8000)], [(63, 129)], [(300, 310)], [(7, 9)], [(333, 500)], [(2, 640)],
    [(96, 128), (128, 96)], [(240, 320), (55, 60)], [(640, 640), (5, 5)], [(150, 151), (149, 300)],
    [(96, 128), (64, 64), (33, 47), (120, 200), (1, 1)], [(200, 201), (202, 203), (100, 101), (90, 180), (66, 70)],
]  # fmt: skip


def picture(height: int, width: int, number: int) -> np.ndarray:
    """RGB, with something in it."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def both(sizes: list[tuple[int, int]], cfg, seed: int) -> tuple[list[dict], list[dict]]:
    """The same images as an exported detector and as PyTorch's takes them."""
    ours, theirs = [], []
    for number, (height, width) in enumerate(sizes):
        image = picture(height, width, 100 * seed + number)
        pixels = image[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else image
        small = resize_image(pixels, *short_side_size(height, width, SHORT, LONG))
        ours.append({"image": to_tensor(image), "height": height, "width": width})
        theirs.append({"image": to_tensor(np.ascontiguousarray(small)), "height": height, "width": width})
    return ours, theirs


def quarter_score(model: torch.nn.Module, cfg) -> float | None:
    """The score that in a quarter of `MANY`'s images no detection has; None of what has no scores of classes."""
    with torch.no_grad():
        found = [one for seed, sizes in enumerate(MANY) for one in model.detect(both(sizes, cfg, seed)[1])]
    scores = [one["instances"]["scores"] for one in found if "instances" in one]
    best = sorted(float(values.max()) for values in scores if len(values))
    return (best[len(best) // 4] + best[len(best) // 4 + 1]) / 2 if best else None


def raise_threshold(model: torch.nn.Module, score: float) -> None:
    """Have no detections below this score."""
    if hasattr(model, "roi_heads"):
        model.roi_heads.box_stages[-1][1].score_threshold = score
    elif hasattr(model, "score_threshold"):
        model.score_threshold = score
