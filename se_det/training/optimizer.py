"""Optimisers with Detectron2's rules for norms and biases, in few parameter groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..layers.norms import BATCH_NORMS

OPTIMIZERS = ("SGD", "AdamW")
CLIP_TYPES = ("value", "norm", "full_model")
NORM_MODULES = (
    *BATCH_NORMS,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
    bias_lr_factor: float = 1.0,
    lr_factors: Mapping[nn.Parameter, float] | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters of `model` by equal hyper-parameters.

    As in Detectron2 a parameter of a norm has `weight_decay_norm`, and then every parameter called `bias`, those of
    norms too, has `weight_decay_bias` and `bias_lr_factor`. None follows `weight_decay` (for the bias of a norm:
    `weight_decay_norm`). Those in `lr_factors` have these besides.

    Returns:
        Dicts of `params`, `weight_decay` and `lr_factor`, in the order in which the model first needs each.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            decay, factor = weight_decay, 1.0
            if isinstance(module, NORM_MODULES) and weight_decay_norm is not None:
                decay = weight_decay_norm
            if name == "bias":
                decay = decay if weight_decay_bias is None else weight_decay_bias
                factor = bias_lr_factor
            factor *= (lr_factors or {}).get(parameter, 1.0)
            groups.setdefault((decay, factor), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "lr_factor": factor} for (decay, factor), p in groups.items()]


def build_optimizer(
    model: nn.Module,
    *,
    base_lr: float,
    weight_decay: float,
    name: str = "SGD",
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
    bias_lr_factor: float = 1.0,
    lr_factors: Mapping[nn.Parameter, float] | None = None,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """SGD or AdamW over what `model` trains; `momentum` and `nesterov` are SGD's.

    `fused` is the fastest and must be off under loss scaling: when the first step overflows, PyTorch's fused SGD
    leaves the gradients out and keeps a momentum that was never written.

    Raises:
        ConfigError: an unknown name, nesterov without momentum, or a model of which nothing trains.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"SOLVER.OPTIMIZER '{name}' is unknown: use one of {', '.join(OPTIMIZERS)}.")
    if name == "SGD" and nesterov and momentum <= 0:
        raise ConfigError(f"SOLVER.NESTEROV needs a SOLVER.MOMENTUM above 0, got {momentum}.")
    groups = parameter_groups(
        model,
        weight_decay=weight_decay,
        weight_decay_norm=weight_decay_norm,
        weight_decay_bias=weight_decay_bias,
        bias_lr_factor=bias_lr_factor,
        lr_factors=lr_factors,
    )
    if not groups:
        raise ConfigError("Nothing of the model trains: lower MODEL.BACKBONE.FREEZE_AT.")
    if name == "SGD":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            groups, lr=base_lr, momentum=momentum, nesterov=nesterov, fused=fused
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=base_lr, fused=fused)
    set_learning_rate(optimizer, base_lr)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Let the next step be made with `lr`, times each group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def clip_gradients(
    parameters: Iterable[nn.Parameter], *, clip_type: str, clip_value: float, norm_type: float = 2.0
) -> None:
    """Limit gradients in place: each element ("value"), each parameter's norm ("norm"), or the norm of all of them
    together ("full_model").

    Raises:
        ConfigError: an unknown `clip_type`.
    """
    parameters = [p for p in parameters if p.grad is not None]
    if clip_type == "value":
        nn.utils.clip_grad_value_(parameters, clip_value)
    elif clip_type == "norm":
        for parameter in parameters:
            nn.utils.clip_grad_norm_([parameter], clip_value, norm_type)
    elif clip_type == "full_model":
        nn.utils.clip_grad_norm_(parameters, clip_value, norm_type)
    else:
        raise ConfigError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE '{clip_type}' is unknown: use one of {', '.join(CLIP_TYPES)}."
        )
