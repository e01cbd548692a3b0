"""Exact statistics of the batch norms for the weights as they are (TEST.PRECISE_BN, Detectron2's hook)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn

from .ema import EMA
from .loop import seed_step

logger = logging.getLogger(__name__)


class PreciseBN:
    """`PreciseBN(...)(step)` gives the batch norms that train the statistics of the training batches that follow
    `step`: those of all of them together, where training has a running average (Wu and Johnson, arXiv 2105.07576).

    A function of the weights, the seed and the step alone. The average of the weights has statistics of its own, those
    under its own weights.

    Args:
        model: in training mode where its norms train; not wrapped.
        batches: the batches from a step on.
        num_iter: how many of them.
        seed: of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batches: Callable[[int], Iterable[Sequence[Any]]],
        num_iter: int,
        seed: int,
        ema: EMA | None = None,
    ) -> None:
        self._model, self._batches, self._num_iter, self._seed, self._ema = model, batches, num_iter, seed, ema
        if not get_bn_modules(model):
            logger.warning("TEST.PRECISE_BN does nothing: no batch norm of this detector trains.")

    def __call__(self, step: int) -> None:
        """Update the statistics after `step` steps."""
        if not get_bn_modules(self._model):
            return
        self._update(step)
        if self._ema is not None:
            with self._ema.applied():
                self._update(step)

    def _update(self, step: int) -> None:
        norms = get_bn_modules(self._model)
        buffers = [(norm.running_mean, norm.running_var, norm.num_batches_tracked.clone()) for norm in norms]
        update_bn_stats(self._model, self._seeded(step), self._num_iter)
        for norm, (mean, variance, count) in zip(norms, buffers):
            # fvcore puts new tensors in their places, and the average of the weights knows the old ones.
            norm.running_mean, norm.running_var = mean.copy_(norm.running_mean), variance.copy_(norm.running_var)
            norm.num_batches_tracked.copy_(count)  # of the training's steps, however often this is done

    def _seeded(self, step: int) -> Iterator[Sequence[Any]]:
        for number, samples in enumerate(self._batches(step)):
            seed_step(self._seed, step, number)
            yield samples
