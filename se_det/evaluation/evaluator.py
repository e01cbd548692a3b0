"""The evaluation loop, and the protocol of an evaluator."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..background import SerialExecutor
from ..errors import ConfigError, DataError
from ..registry import Registry

LOG_SECONDS = 10.0

logger = logging.getLogger(__name__)


# TEST.EVALUATORS: build(cfg, dataset, folder) -> Evaluator. `dataset` is a `CocoDataset`; `folder` is the run's, for
# what it writes; None for nothing.
EVALUATORS = Registry("evaluator")


class Evaluator(Protocol):
    """What `evaluate` needs of an evaluator, as Detectron2's DatasetEvaluator. Every process has one and gives it its
    part of the data; gathering the parts (`comm.gather`) is the evaluator's own work.

    An evaluator may have `metrics`, the names "task/name" that it will give: TEST.BEST_METRIC is checked against them
    before a run.
    """

    def reset(self) -> None:
        """Forget everything: an evaluation begins."""
        ...

    def process(self, samples: list[Mapping[str, Any]], outputs: list[Mapping[str, Any]]) -> None:
        """Take what the detector made (see `detection.registry`) of samples with `image_id`, `height`, `width`."""
        ...

    def evaluate(self) -> dict[str, dict[str, float]]:
        """The metrics by task and name on the first process, `{}` elsewhere. Every process calls it."""
        ...


class Evaluators:
    """Several evaluators as one.

    Args:
        parts: by their names.
    """

    def __init__(self, parts: Mapping[str, Evaluator]) -> None:
        self.parts = dict(parts)

    def reset(self) -> None:
        """Reset each."""
        for part in self.parts.values():
            part.reset()

    def process(self, samples: list[Mapping[str, Any]], outputs: list[Mapping[str, Any]]) -> None:
        """Give each the same."""
        for part in self.parts.values():
            part.process(samples, outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """The metrics of all.

        Raises:
            ConfigError: two give a task of the same name, or one gives something else than numbers by task and name.
        """
        merged: dict[str, dict[str, float]] = {}
        for name, part in self.parts.items():
            found = part.evaluate()
            if not isinstance(found, Mapping) or not all(isinstance(values, Mapping) for values in found.values()):
                raise ConfigError(
                    f"The evaluator '{name}' (TEST.EVALUATORS) must give {{task: {{name: number}}}}, got {found!r}."
                )
            twice = merged.keys() & found.keys()
            if twice:
                raise ConfigError(
                    f"Two of TEST.EVALUATORS {list(self.parts)} give the task '{min(twice)}': leave one out."
                )
            merged |= {task: dict(values) for task, values in found.items()}
        return merged

    def metrics(self) -> list[str] | None:
        """The names "task/name" of what they will give; None where one does not say."""
        names: list[str] = []
        for part in self.parts.values():
            if not hasattr(part, "metrics"):
                return None
            names += part.metrics
        return names


def new_images(
    samples: Iterable[Mapping[str, Any]],
    outputs: Iterable[Mapping[str, Any]],
    *,
    known: Container[Any],
    seen: Container[Any],
    source: str | Path,
) -> Iterator[tuple[Any, Mapping[str, Any], Mapping[str, Any]]]:
    """(image_id, sample, output) of each sample whose image was not seen before.

    Args:
        known: ids of the images that are evaluated on.
        seen: ids of those that have been taken; asked when a sample's turn comes.
        source: the annotation file, for the sentence.

    Raises:
        DataError: an image that is not in the data set.
    """
    for sample, output in zip(samples, outputs, strict=True):
        image_id = sample["image_id"]
        if image_id not in known:
            raise DataError(
                f"Image {image_id!r} is not in {source}, which is evaluated against. Load the images from the same "
                "annotation file."
            )
        if image_id not in seen:
            yield image_id, sample, output


def build_evaluators(cfg: CfgNode, dataset: Any, folder: str | Path | None) -> Evaluators:
    """Those that TEST.EVALUATORS names, on one data set.

    Raises:
        ConfigError: a name is unknown or is used twice, or there is none.
    """
    names = list(cfg.TEST.EVALUATORS)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"TEST.EVALUATORS must name one or several evaluators, each once, got {names}.")
    kinds = {name: EVALUATORS.get(name, "TEST.EVALUATORS") for name in names}
    return Evaluators({name: build(cfg, dataset, folder) for name, build in kinds.items()})


def evaluate(
    model: nn.Module,
    loader: Iterable[list[dict]],
    evaluator: Evaluator,
    *,
    infer: Callable[[list[dict]], list[dict]] | None = None,
    unit: str = "image",
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
        unit: what samples are, for the log.

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
        for samples in _with_progress(loader, unit):
            collect(samples, (infer or model)(samples))
    return evaluator.evaluate()


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode; afterwards each module gets its own mode back, as frozen parts of a model in
    training are in evaluation mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _with_progress(loader: Iterable[list[dict]], unit: str) -> Iterator[list[dict]]:
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
            logger.info("Evaluated batch %d%s: %.3f s/%s%s.", done, of, (now - start) / images, unit, left)
    spent = time.perf_counter() - start
    logger.info("Evaluated %d %ss in %s (%.3f s/%s).", images, unit, _clock(spent), spent / max(images, 1), unit)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
