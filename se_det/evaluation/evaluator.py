"""The evaluation loop: a model over a loader into an evaluator."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from ..background import SerialExecutor

LOG_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Evaluator(Protocol):
    """What `evaluate` needs of an evaluator."""

    def reset(self) -> None: ...

    def process(self, samples: list[Mapping[str, Any]], outputs: list[Mapping[str, Any]]) -> None: ...

    def evaluate(self) -> dict[str, dict[str, float]]: ...


def evaluate(
    model: nn.Module,
    loader: Iterable[list[dict]],
    evaluator: Evaluator,
    *,
    infer: Callable[[list[dict]], list[dict]] | None = None,
) -> dict[str, dict[str, float]]:
    """Run `model` over `loader` and return what `evaluator` says of its outputs.

    Every process calls this with its own part of the data; the parts may differ in length. The model is put in
    evaluation mode, and each of its modules gets its own mode back afterwards. Gradients are off. For another
    precision call it under `torch.autocast`.

    Args:
        model: takes a list of samples and returns a list of outputs, one per sample.
        loader: batches, each a list of samples; logs the time left when it has a length.
        evaluator: takes the outputs.
        infer: called in place of `model`: `GeneralizedRCNN.detect` leaves masks to the evaluator.

    Returns:
        The metrics on the first process, `{}` elsewhere.
    """
    # DistributedDataParallel broadcasts buffers at every forward: processes with fewer batches would leave the
    # others waiting.
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    evaluator.reset()
    # no_grad and not inference_mode: what a model caches here, such as anchors, must still serve training.
    # Results are encoded and collected while the model already works on the next batch.
    with _evaluation_mode(model), torch.no_grad(), SerialExecutor(evaluator.process) as collect:
        for samples in _with_progress(loader):
            collect(samples, (infer or model)(samples))
    return evaluator.evaluate()


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; outside, each module's own: frozen parts of a model in training are not in training."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _with_progress(loader: Iterable[list[dict]]) -> Iterator[list[dict]]:
    total = len(loader) if hasattr(loader, "__len__") else None
    start = last = time.perf_counter()
    images = 0
    for done, samples in enumerate(loader, 1):
        yield samples
        images += len(samples)
        now = time.perf_counter()
        if now - last >= LOG_SECONDS and done != total:
            last = now
            left = "" if total is None else f", {_clock((now - start) / done * (total - done))} left"
            of = "" if total is None else f" of {total}"
            logger.info("Evaluated batch %d%s: %.3f s/image%s.", done, of, (now - start) / images, left)
    spent = time.perf_counter() - start
    logger.info("Evaluated %d images in %s (%.3f s/image).", images, _clock(spent), spent / max(images, 1))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
