"""The zoo's classifiers that lie on this machine, evaluated on one's own copy of the validation images."""

from __future__ import annotations

import logging
from typing import Any

import torch

from ..errors import ConfigError, WeightsError
from ..layers.fuse import fuse_for_inference
from ..weights import create_model
from ..weights.download import cache_path
from ..weights.zoo import ClassifierEntry, classifier_entries
from .data.dataset import ClassificationDataset
from .data.loader import test_loader
from .evaluation import evaluate_classifier
from .preprocessing import Preprocessing

CLASSES = 1000

logger = logging.getLogger(__name__)


def cached_entries(pattern: str = "*") -> list[ClassifierEntry]:
    """The entries that match a shell pattern and whose files were downloaded, or brought into the cache."""
    return [entry for entry in classifier_entries(pattern) if entry.url and cache_path(entry.url).is_file()]


def evaluate_zoo(
    pattern: str,
    images: ClassificationDataset,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | None = None,
) -> list[dict[str, Any]]:
    """Evaluate the entries on disk, one crop of the size that was reported, and log errors beside published ones.

    Args:
        images: of ImageNet's 1000 classes in the standard order (sorted synsets).

    Returns:
        for each entry `name`, `images`, `top1_error`, `top5_error` in percent, and `published`: a dict of `source`,
        `top1_error` and `top5_error` for each report. An entry whose classifier cannot be used has `refused`, a
        sentence, in place of the numbers.

    Raises:
        ConfigError: no matching entry is on disk, or the images are of another number of classes.
    """
    entries = cached_entries(pattern)
    if not entries:
        raise ConfigError(
            f"--zoo {pattern} matches no weights on this machine: name one that was downloaded, or fetch it with "
            "MODEL.WEIGHTS zoo://<name>. model_zoo/README.md lists all."
        )
    if len(images.class_names) != CLASSES:
        raise ConfigError(
            f"{images.source} has {len(images.class_names)} classes, and the zoo's classifiers know ImageNet's "
            f"{CLASSES}: give its validation images as class folders or as a list."
        )
    return [_evaluate(entry, images, batch_size, num_workers, device or torch.device("cpu")) for entry in entries]


def _evaluate(
    entry: ClassifierEntry, images: ClassificationDataset, batch_size: int, num_workers: int, device: torch.device
) -> dict[str, Any]:
    published = [{"source": r.source, "top1_error": 100 - r.top1, "top5_error": 100 - r.top5} for r in entry.reports]
    try:
        model = create_model(entry.architecture, num_classes=CLASSES, weights=entry.name)
        fuse_for_inference(model.to(device))
    except WeightsError as error:  # such as classes in an order that nobody knows
        logger.warning("%s", error)
        return {"name": entry.name, "refused": str(error), "published": published}
    facts, size = entry.facts, entry.reports[0].crop
    view = Preprocessing(size=size, format=facts.input_format, mean=facts.pixel_mean, std=facts.pixel_std)
    loader = test_loader(images, size=size, crop_ratio=view.crop_ratio, batch_size=batch_size, num_workers=num_workers)
    found = evaluate_classifier(model, loader, num_classes=CLASSES, preprocessing=view, device=device,
                                channels_last=True)  # fmt: skip
    row = {key: found[key] for key in ("images", "top1_error", "top5_error")}
    told = "; ".join(f"{p['source']} {p['top1_error']:.2f} / {p['top5_error']:.2f}" for p in published)
    logger.info(
        "%s, %d images at %d px: top-1 / top-5 error %.2f / %.2f %% (reported: %s)",
        entry.name, row["images"], size, row["top1_error"], row["top5_error"], told,
    )  # fmt: skip
    return {"name": entry.name, **row, "published": published}
