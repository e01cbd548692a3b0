"""The learning rate as a pure function of the step, so that nothing of it needs saving."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError

SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR")
WARMUPS = ("linear", "constant")


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Detectron2's two schedules with warm-up; `rate(step)` is what step number `step`, from 0, is made with.

    The warm-up is never longer than the run. A linear one rises from `warmup_factor` times the first value to the
    value that the schedule itself has at the end of the warm-up, so a decay inside the warm-up lowers where it goes.

    Raises:
        ConfigError: a name, a length or the order of `steps` cannot work.
    """

    base_lr: float
    max_iter: int
    name: str = "WarmupMultiStepLR"
    steps: Sequence[int] = ()
    gamma: float = 0.1
    end_factor: float = 0.0  # where the cosine ends, as a share of base_lr
    warmup_factor: float = 0.001
    warmup_iters: int = 1000
    warmup_method: str = "linear"

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ConfigError(f"SOLVER.LR_SCHEDULER_NAME '{self.name}' is unknown: use one of {', '.join(SCHEDULES)}.")
        if self.warmup_method not in WARMUPS:
            raise ConfigError(
                f"SOLVER.WARMUP_METHOD '{self.warmup_method}' is unknown: use one of {', '.join(WARMUPS)}."
            )
        if self.max_iter < 1:
            raise ConfigError(f"SOLVER.MAX_ITER must be at least 1, got {self.max_iter}.")
        if self.warmup_iters < 0:
            raise ConfigError(f"SOLVER.WARMUP_ITERS must not be negative, got {self.warmup_iters}.")
        if not self.base_lr > 0:
            raise ConfigError(f"SOLVER.BASE_LR must be above 0, got {self.base_lr}.")
        if not 0 <= self.end_factor <= 1:
            raise ConfigError("SOLVER.BASE_LR_END must lie between 0 and SOLVER.BASE_LR.")
        if list(self.steps) != sorted(set(self.steps)) or any(step < 1 for step in self.steps):
            raise ConfigError(f"SOLVER.STEPS must be positive and rise, got {tuple(self.steps)}.")

    def __call__(self, step: int) -> float:
        warmup = min(self.warmup_iters, self.max_iter)
        if step >= warmup:
            return self.base_lr * self._without_warmup(step)
        start = self.warmup_factor * self._without_warmup(0)
        if self.warmup_method == "constant":
            return self.base_lr * start
        part = step / warmup
        return self.base_lr * (self._without_warmup(warmup) * part + start * (1 - part))

    def _without_warmup(self, step: int) -> float:
        if self.name == "WarmupMultiStepLR":
            return self.gamma ** bisect_right([s for s in self.steps if s < self.max_iter], step)
        # A run that early evaluation lets go past its end, or a warm-up as long as the run, asks for the last value.
        done = min(step / self.max_iter, 1.0)
        return self.end_factor + 0.5 * (1 - self.end_factor) * (1 + math.cos(math.pi * done))


def schedule_warnings(rate: LearningRate) -> list[str]:
    """Sentences about a schedule that the run is too short for."""
    found = []
    late = [step for step in rate.steps if step >= rate.max_iter]
    if late and rate.name == "WarmupMultiStepLR":
        kept = "the learning rate is never lowered" if len(late) == len(rate.steps) else "they are left out"
        found.append(f"SOLVER.STEPS {late} are not before SOLVER.MAX_ITER {rate.max_iter}: {kept}.")
    if rate.warmup_iters > rate.max_iter / 2:
        steps = range(0, rate.max_iter, max(rate.max_iter // 1000, 1))
        highest, last = max(map(rate, steps)), rate(rate.max_iter - 1)
        beyond = "does not end before" if rate.warmup_iters >= rate.max_iter else "takes most of"
        found.append(
            f"The warm-up of SOLVER.WARMUP_ITERS {rate.warmup_iters} steps {beyond} the run of SOLVER.MAX_ITER "
            f"{rate.max_iter}: the learning rate reaches {highest:.3g} of {rate.base_lr:.3g} at most and ends at "
            f"{last:.3g}. Set SOLVER.WARMUP_ITERS to a tenth of the run, such as {max(rate.max_iter // 10, 1)}."
        )
    return found


def scaled_base_lr(base_lr: float, ims_per_batch: int, reference_batch: int) -> float:
    """The linear rule: `base_lr`, which is meant for `reference_batch` images per step (0: for any number), for
    `ims_per_batch` images per step."""
    return base_lr * ims_per_batch / reference_batch if reference_batch > 0 else base_lr
