"""Classifiers whose accuracy someone published, evaluated on one's own copy of the images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from .batches import test_loader
from .evaluation import evaluate_classifier
from .preprocessing import Preprocessing
from .sources import LabelledImages

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A classifier and what was published of it.

    Attributes:
        load: builds it with its weights; called one after the other, so that one is in memory at a time.
        top1_error, top5_error: in percent, single crop; None where unknown.
    """

    name: str
    load: Callable[[], nn.Module]
    preprocessing: Preprocessing
    top1_error: float | None = None
    top5_error: float | None = None


def evaluate_published(
    entries: Iterable[Published],
    images: LabelledImages,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | None = None,
) -> list[dict[str, object]]:
    """Evaluate each and log its errors beside the published ones.

    Returns:
        A dict for each: `name`, `images`, `top1_error`, `top5_error`, `published_top1_error`, `published_top5_error`.
    """
    device = device or torch.device("cpu")
    rows: list[dict[str, object]] = []
    logger.info("%-40s %16s %16s", "single crop, error in %", "top-1 (publ.)", "top-5 (publ.)")
    for entry in entries:
        model = entry.load().to(device)
        loader = test_loader(
            images, size=entry.preprocessing.size, crop_ratio=entry.preprocessing.crop_ratio, batch_size=batch_size,
            num_workers=num_workers,
        )  # fmt: skip
        result = evaluate_classifier(
            model, loader, num_classes=len(images.class_names), preprocessing=entry.preprocessing, device=device
        )
        rows.append(
            {
                "name": entry.name,
                "images": result["images"],
                "top1_error": result["top1_error"],
                "top5_error": result["top5_error"],
                "published_top1_error": entry.top1_error,
                "published_top5_error": entry.top5_error,
            }
        )
        logger.info(
            "%-40s %6.2f (%7s) %6.2f (%7s)", entry.name, result["top1_error"], _told(entry.top1_error),
            result["top5_error"], _told(entry.top5_error),
        )  # fmt: skip
    return rows


def _told(error: float | None) -> str:
    return "none" if error is None else f"{error:.2f}"
