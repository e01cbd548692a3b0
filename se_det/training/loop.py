"""The training loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from .. import comm
from ..data.skipping import SkippedImages
from .ema import EMA
from .hooks import PeriodicActions
from .loss_reader import LossReader, is_loss
from .optimizer import set_learning_rate
from .precision import Precision
from .preemption import EvaluationStopped, StopRequest
from .progress import Progress

logger = logging.getLogger(__name__)

Sample = Mapping[str, Any]


def train(
    model: nn.Module,
    batches: Iterator[Sequence[Sample]],
    optimizer: torch.optim.Optimizer,
    learning_rate: Callable[[int], float],
    *,
    max_iter: int,
    seed: int,
    actions: PeriodicActions,
    progress: Progress,
    start: int = 0,
    accumulate: int = 1,
    precision: Precision | None = None,
    clip: Callable[[], None] | None = None,
    ema: EMA | None = None,
    read_every_step: bool = True,
    stop: StopRequest | None = None,
    skipped: SkippedImages | None = None,
) -> None:
    """Train from step `start` until `max_iter` steps are done or `actions` ends the run.

    Args:
        model: takes a list of samples and returns a dict of 0-d terms, of which those called `loss...` are added up and
            the others are only logged; may be wrapped for several processes.
        batches: micro-batches, `accumulate` of them for each step.
        learning_rate: of a step, from 0.
        seed: with the step and the process it decides every random number of the step.
        actions: run after every step with the number of steps done; they may end the run.
        progress: is given the losses and the learning rate.
        clip: limits the gradients, once they are unscaled.
        read_every_step: look at the losses at once, which stops a GPU's queue; else when a line is due.
        stop: asked after every step whether to save and leave before the end.
        skipped: the bad images left out, on which the processes agree from time to time.

    Raises:
        TrainingError: a loss is not finite; or `stop` was asked, and all is saved.
        DataError: the processes together have left out more images than they may.
    """
    precision, stop, skipped = precision or Precision(), stop or StopRequest(), skipped or SkippedImages()
    reader = LossReader()
    model.train()
    for step in range(start, max_iter):
        lr = learning_rate(step)
        set_learning_rate(optimizer, lr)
        optimizer.zero_grad(set_to_none=True)
        parts, image_ids = [], []
        for part in range(accumulate):
            with progress.data_time():
                samples = next(batches)
            seed_step(seed, step, part)  # now, as loading may draw random numbers too
            image_ids += [sample.get("image_id") for sample in samples]
            with _gradients_shared(model, part == accumulate - 1):
                with precision.autocast():
                    losses = _losses(model, samples, reader)
                precision.backward(sum(v for name, v in losses.items() if is_loss(name)) / accumulate)
            parts.append(losses)
        precision.step(optimizer, clip)
        if ema is not None:
            ema.update(step)
        done = step + 1
        reader.add(step, lr, parts, image_ids)
        leaving = done < max_iter and stop.requested(done)
        # Before a checkpoint is written too: none is of weights that are not finite.
        if read_every_step or leaving or progress.due(done) or actions.due(done):
            progress.add(reader.read())
            skipped.synchronize()
        if progress.due(done):
            progress.line(done)
        if leaving:
            _save_and_stop(
                stop, actions, done, f"after {done} of {max_iter} steps. All of it is saved: --resume goes on."
            )
        if actions.due(done):
            with progress.paused():
                try:
                    if actions(done):
                        return
                except EvaluationStopped:
                    when = f"in the evaluation after {done} of {max_iter} steps. All else is saved: --resume evaluates"
                    _save_and_stop(stop, actions, done, f"{when}{' and goes on' if done < max_iter else ''}.")


def _save_and_stop(stop: StopRequest, actions: PeriodicActions, step: int, when: str) -> NoReturn:
    actions.save(step)
    comm.synchronize()  # whoever started the processes ends them all when the first one leaves
    raise stop.error(when)


def seed_step(seed: int, step: int, part: int = 0) -> None:
    """Make this process's random numbers a function of (seed, step, part, rank), so that none need saving."""
    state = np.random.SeedSequence((seed, step, part, comm.get_rank())).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))


def _losses(model: nn.Module, samples: Sequence[Sample], reader: LossReader) -> dict[str, torch.Tensor]:
    try:
        return model(samples)
    except Exception as error:
        # Weights that are not finite fail in many ways, before the step that spoilt them has been looked at.
        explained = reader.explain()
        if explained is not None:
            raise explained from error
        raise


def _gradients_shared(model: nn.Module, last: bool) -> AbstractContextManager:
    """Processes add up their gradients once per step, in its last part."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
