"""Training steps for a benchmark's turns: a run's own loop and settings, with nothing between the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..classification.build import build_objective
from ..classification.data.loader import Batch
from ..classification.defaults import get_pretrain_cfg
from ..training import build
from ..training.hooks import PeriodicActions
from ..training.loop import Sample, train
from ..training.progress import Progress

# Weights are random and norms may be fixed: at a run's rate the loss could leave the finite numbers. What a step
# computes, and so its time, is the same.
LEARNING_RATE = 1e-6


class TrainingSteps:
    """`steps(batches, count)` makes the next `count` steps as a run of `cfg` does, without checkpoints or evaluations.

    Args:
        cfg: a detector's or pretraining's; its optimiser, precision, clipping, averaging and accumulation are used.
        model: on MODEL.DEVICE; batch to loss terms, see `train`. May wrap a network of another library.

    Raises:
        TrainingError: while stepping, a loss that is not finite.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        device = torch.device(cfg.MODEL.DEVICE)
        build.set_backend_flags(cfg)
        precision = build.precision(cfg, device)
        self._done = 0
        self._train = partial(
            train,
            model,
            optimizer=build.optimizer(cfg, model, base_lr=LEARNING_RATE, scaled=precision.scaled),
            learning_rate=lambda step: LEARNING_RATE,
            seed=0,
            actions=_NoActions(),
            accumulate=cfg.SOLVER.ACCUMULATE,
            precision=precision,
            clip=build.gradient_clip(cfg, model),
            ema=build.build_ema(cfg, model),
            read_every_step=device.type == "cpu",
        )

    def __call__(self, batches: Iterator[Sequence[Sample]], count: int = 1) -> None:
        start, self._done = self._done, self._done + count
        self._train(
            batches=batches, start=start, max_iter=self._done, progress=Progress(start=start, max_iter=self._done)
        )


class _NoActions(PeriodicActions):
    """Of a run that keeps nothing."""

    def __init__(self) -> None:
        pass

    def due(self, step: int) -> bool:
        return False


def recipe(*, batch: int, size: int, device: str, classes: int = 1000, bfloat16: bool = False) -> CfgNode:
    """Pretraining's defaults for steps of `batch` images of `size` px."""
    cfg = get_pretrain_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.NUM_CLASSES = device, classes
    cfg.INPUT.IMAGE_SIZE, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.AMP.ENABLED = size, batch, bfloat16
    return cfg


def pretraining_steps(cfg: CfgNode, classifier: nn.Module) -> TrainingSteps:
    """Steps that train `classifier`, images to logits, from pixels on."""
    classifier.to(cfg.MODEL.DEVICE, memory_format=torch.channels_last)
    return TrainingSteps(cfg, build_objective(cfg, classifier, seed=0).to(cfg.MODEL.DEVICE))


def random_batch(cfg: CfgNode) -> Batch:
    """Noise of the recipe's size."""
    count, size = cfg.SOLVER.IMS_PER_BATCH, cfg.INPUT.IMAGE_SIZE
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    numbers = torch.arange(count)
    return Batch(images, numbers % cfg.MODEL.NUM_CLASSES, numbers, ["noise"] * count)
