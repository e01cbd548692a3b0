"""How long a step takes and whether it fits, tried in a process of its own, which may run out of memory."""

from __future__ import annotations

import logging
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ...config.loading import set_key
from ...config.resolution import Decision
from ...data.loader import build_train_loader
from ...detection.build import build_detector
from ...device import select_device
from ...errors import SeDetError, TrainingError
from .. import build, datasets
from ..loss_reader import is_loss
from ..precision import Precision
from .decide import SOURCE

LEAST, MOST = 3, 16  # steps
SECONDS = 3  # of steps between them are enough

logger = logging.getLogger(__name__)


class TrialOutOfMemory(Exception):
    """A trial did not fit."""


def fit_batch(cfg: CfgNode) -> tuple[float, list[Decision]]:
    """Seconds that a step of `cfg` takes, its images in as many parts as it needs to fit into memory.

    Args:
        cfg: of a training whose data can be read.

    Returns:
        The seconds of a whole step, and what SOLVER.ACCUMULATE is for it.

    Raises:
        SeDetError: what a training would be refused with; or a single image does not fit.
    """
    cfg = cfg.clone()
    cfg.defrost()
    decisions: list[Decision] = []
    while True:
        try:
            return run_trial(cfg), decisions
        except TrialOutOfMemory as error:
            parts = cfg.SOLVER.ACCUMULATE * 2
            if cfg.SOLVER.IMS_PER_BATCH % parts:
                raise TrainingError(
                    f"Even {cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.ACCUMULATE} images at a time do not fit into memory "
                    f"({error}): lower INPUT.MIN_SIZE_TRAIN and INPUT.MAX_SIZE_TRAIN, or choose a smaller --model."
                ) from None
            cfg.SOLVER.ACCUMULATE = parts
            at_once = cfg.SOLVER.IMS_PER_BATCH // parts
            reason = f"a step of more than {at_once} images at a time did not fit into memory"
            logger.info("%s: %s; trying %d images at a time.", SOURCE, error, at_once)
            decisions = [Decision("SOLVER.ACCUMULATE", parts, SOURCE, reason)]


def run_trial(cfg: CfgNode) -> float:
    """Make some steps of `cfg` in a new process; the seconds of one.

    Raises:
        TrialOutOfMemory: the process was killed, or said that memory is used up.
        SeDetError: what the step was refused with.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_trial, args=(cfg, torch.get_num_threads(), theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        kind, value = ours.recv()
    except EOFError:
        kind, value = "died", None
    finally:
        process.join()
    if kind == "seconds":
        return value
    if kind == "memory" or (kind == "died" and process.exitcode in (-9, 137)):
        raise TrialOutOfMemory(value or "the process was killed")
    if kind == "refused":
        raise value
    raise TrainingError(f"A step was tried in a process that ended with exit code {process.exitcode}. See above.")


def _trial(cfg: CfgNode, threads: int, answer: Connection) -> None:
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)  # the run says it all again
    try:
        answer.send(("seconds", _time_steps(cfg)))
    except SeDetError as error:
        answer.send(("refused", error))
    except (MemoryError, torch.OutOfMemoryError) as error:
        answer.send(("memory", str(error).splitlines()[0] if str(error) else "out of memory"))
    except RuntimeError as error:
        # PyTorch's CPU allocator has no exception of its own.
        if "memory" not in str(error):
            raise
        answer.send(("memory", str(error).splitlines()[0]))


def _time_steps(cfg: CfgNode) -> float:
    device = select_device(cfg.MODEL.DEVICE)
    train = datasets.train_datasets(cfg)
    for decision in [*datasets.decide_num_classes(cfg, train[0]), *datasets.decide_heads(cfg, train[0])]:
        set_key(cfg, decision.key, decision.value)
    torch.manual_seed(0)
    model = build_detector(cfg).to(device, memory_format=torch.channels_last)
    precision = build.precision(cfg, device)
    optimizer = build.optimizer(cfg, model, base_lr=1e-6, scaled=precision.scaled)
    loader = iter(build_train_loader(cfg, train, seed=0, start=0, rank=0, world_size=1))
    # Every step twice: the first time memory is asked for and kernels are chosen, for images of every new size.
    steps: list[tuple[float, list[list[dict[str, Any]]]]] = []  # seconds of loading, and the parts of the step
    first = 0.0
    while len(steps) < LEAST or (len(steps) < MOST and first < SECONDS):
        begin = time.perf_counter()
        parts = [next(loader) for _ in range(cfg.SOLVER.ACCUMULATE)]
        loaded = time.perf_counter()
        _step(model, parts, precision, optimizer)
        steps.append((loaded - begin, parts))
        first += time.perf_counter() - begin
    begin = time.perf_counter()
    for _, parts in steps:
        _step(model, parts, precision, optimizer)
    return (time.perf_counter() - begin + sum(seconds for seconds, _ in steps)) / len(steps)


def _step(
    model: nn.Module, parts: list[list[dict[str, Any]]], precision: Precision, optimizer: torch.optim.Optimizer
) -> None:
    for samples in parts:
        with precision.autocast():
            losses = model(samples)
        precision.backward(sum(value for name, value in losses.items() if is_loss(name)) / len(parts))
    precision.step(optimizer, None)
    optimizer.zero_grad(set_to_none=True)
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
