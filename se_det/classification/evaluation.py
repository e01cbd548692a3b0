"""Top-1 and top-5 accuracy on centre crops, over one process or several, every image counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .. import comm
from ..errors import DataError
from ..files import write_json
from .data.loader import Batch
from .preprocessing import Preprocessing

TASK = "classification"
RESULTS = Path("inference", "metrics.json")


@torch.no_grad()
def evaluate_classifier(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    preprocessing: Preprocessing,
    device: torch.device,
    autocast: AbstractContextManager | None = None,
    channels_last: bool = False,
) -> dict[str, Any]:
    """Accuracy of `model` over every process's batches; the model's mode is as before afterwards.

    Args:
        batches: of images that are already cropped, this process's share of all.
        autocast: the arithmetic, as in training.

    Returns:
        On the first process `top1`, `top5` (of all classes where there are fewer), `top1_error`, `top5_error` in
        percent, `loss` (mean cross-entropy), `images`, and `per_class`: `{class: top-1 in percent}` by the number of
        the class, of those that have images. `{}` elsewhere.

    Raises:
        DataError: there are no images in any process.
    """
    autocast = autocast or nullcontext()
    seen, right, right5 = (torch.zeros(num_classes, dtype=torch.int64, device=device) for _ in range(3))
    loss = torch.zeros((), dtype=torch.float64, device=device)
    training = model.training
    model.eval()
    try:
        for batch in batches:
            x = preprocessing.normalize(batch.images.to(device, non_blocking=True))
            if channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            labels = batch.labels.to(device, non_blocking=True)
            with autocast:
                logits = model(x)
            logits = logits.float()
            best = logits.topk(min(5, num_classes), dim=1).indices == labels[:, None]
            seen.index_add_(0, labels, torch.ones_like(labels))
            right.index_add_(0, labels, best[:, 0].long())
            right5.index_add_(0, labels, best.any(1).long())
            loss += F.cross_entropy(logits, labels, reduction="none").double().sum()
    finally:
        model.train(training)
    parts = comm.gather((seen.cpu(), right.cpu(), right5.cpu(), loss.item()))
    if not comm.is_main_process():
        return {}
    seen, right, right5 = (sum(part[place] for part in parts) for place in range(3))
    images = int(seen.sum())
    if not images:
        raise DataError("There are no images to evaluate on.")
    top1, top5 = (100 * int(count.sum()) / images for count in (right, right5))
    return {
        "top1": top1,
        "top5": top5,
        "top1_error": 100 - top1,
        "top5_error": 100 - top5,
        "loss": sum(part[3] for part in parts) / images,
        "images": images,
        "per_class": {n: 100 * int(right[n]) / int(seen[n]) for n in range(num_classes) if seen[n]},
    }


def write_results(folder: str | Path, results: Mapping[str, Any], class_names: Sequence[str]) -> Path:
    """Write `inference/metrics.json` in `folder`: the numbers, and the accuracy of every class by its name."""
    path = Path(folder) / RESULTS
    per_class = {class_names[number]: value for number, value in results["per_class"].items()}
    write_json(path, {TASK: {k: v for k, v in results.items() if k != "per_class"}, "per_class": per_class}, indent=1)
    return path
