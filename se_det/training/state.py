"""What a checkpoint keeps of a run, and putting it back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..data.skipping import SkippedImages
from ..errors import CheckpointError, TrainingError
from ..layers.running_mean import running_means
from ..weights.loading import check_values
from .checkpoint import ENGINE
from .ema import EMA
from .precision import Precision


@dataclass(kw_only=True)
class RunState:
    """The parts of a run that change as it goes on, and the facts that tell what it is.

    Args:
        model: not wrapped.
        config: the run's YAML.
        categories: `[{"id": ..., "name": ...}, ...]` in the order of the classes.
        images: of the training data, or windows of them.
        unit: what they are.
        pixel_classes: as `categories`, of the classes of pixels.
        skipped: the bad images left out so far; None for a run that has none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    ema: EMA | None
    seed: int
    config: str
    categories: list[dict[str, Any]]
    images: int
    pixel_classes: list[dict[str, Any]] = field(default_factory=list)
    skipped: SkippedImages | None = None
    unit: str = "images"

    def snapshot(self, step: int) -> dict[str, Any]:
        """Everything needed to go on after `step` steps."""
        return {
            **self.weights(step),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.state_dict(),
            "scheduler": {"last_epoch": step},
            # One batch a step, drawn by index: the number of steps is the sampler's position.
            "sampler": {"batches": step, "images": self.images},
            "rng": {"seed": self.seed},
            "running": {name: float(mean.value) for name, mean in running_means(self.model).items()},
            "skipped": dict(self.skipped.found) if self.skipped else {},
            "frozen": sorted(name for name, p in self.model.named_parameters() if not p.requires_grad),
        }

    def weights(self, step: int) -> dict[str, Any]:
        """The raw weights, the averaged ones where there are any, and what they are of.

        Raises:
            TrainingError: a weight is not finite. That shows in the loss of the next step only.
        """
        _require_finite(self.model, step)
        state = {
            "engine": ENGINE,
            "model": dict(self.model.state_dict()),
            "iteration": step,
            "config": self.config,
            "categories": self.categories,
            **({"pixel_classes": self.pixel_classes} if self.pixel_classes else {}),
        }
        if self.ema is not None:
            # Whole, so that it loads like a model: what has no average is as it is.
            state["ema"] = {**state["model"], **self.ema.state_dict()}
        return state

    def restore(self, state: Mapping[str, Any], path: str | os.PathLike) -> int:
        """Put a snapshot back and return the number of steps done.

        Raises:
            CheckpointError: it does not fit this run.
        """
        if state["sampler"]["images"] != self.images:
            raise CheckpointError(
                f"{path} was trained on {state['sampler']['images']} {self.unit}, and the training data has "
                f"{self.images} now, so the order of the {self.unit} would be another: resume with the data it was "
                "started with."
            )
        own = self.model.state_dict()
        for part in ("model", "ema"):
            for name, value in (state.get(part) or {}).items():
                if name in own:
                    check_values(value, own[name], f"{path}: {name}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.precision.load_state_dict(state["scaler"])
            for name, mean in running_means(self.model).items():
                mean.value.fill_(state["running"][name])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} does not fit this run, though the configuration is the same: {str(error).splitlines()[0]}"
            ) from error
        return int(state["iteration"])


def _require_finite(model: nn.Module, step: int) -> None:
    tensors = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([torch.isfinite(value).all() for value in tensors.values()]).tolist()
    bad = next((name for name, sound in zip(tensors, finite) if not sound), None)
    if bad is not None:
        raise TrainingError(
            f"The weights are not finite after step {step} (the first is {bad}). No checkpoint of them was written. "
            "Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or set SOLVER.CLIP_GRADIENTS.ENABLED True; --resume "
            "goes on from the last checkpoint."
        )


def restore_frozen(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Train and freeze what the saved run did: loading weights at its start may have decided on that."""
    frozen = set(state["frozen"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
