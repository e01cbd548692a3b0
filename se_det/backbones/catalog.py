"""Architectures as data: a host network is a line, and a model is `[gate_]host`."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..errors import ConfigError, did_you_mean
from ..layers.gates import GATES
from .classifier import Classifier
from .resnet import STAGES, ResNet
from .timm_trunk import PREFIX, TimmTrunk


@dataclass(frozen=True)
class Host:
    """A network that gates can be put into: the function that builds it and that function's arguments."""

    build: Callable[..., nn.Module]
    arguments: dict[str, Any] = field(default_factory=dict)


HOSTS = {
    "resnet18": Host(ResNet, {"depth": 18}),
    "resnet34": Host(ResNet, {"depth": 34}),
    "resnet50": Host(ResNet, {"depth": 50}),
    "resnet101": Host(ResNet, {"depth": 101}),
    "resnet152": Host(ResNet, {"depth": 152}),
    "resnext50_32x4d": Host(ResNet, {"depth": 50, "groups": 32, "width_per_group": 4}),
    "resnext101_32x4d": Host(ResNet, {"depth": 101, "groups": 32, "width_per_group": 4}),
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern, such as "rg_se_*"."""
    names = [host if gate == "none" else f"{gate}_{host}" for host in HOSTS for gate in GATES]
    return fnmatch.filter(names, pattern)


def parse_name(name: str) -> tuple[str, str]:
    """(gate, host) of a model's name.

    Raises:
        ConfigError: there is no such model.
    """
    if name in HOSTS:
        return "none", name
    for gate in GATES:
        host = name.removeprefix(f"{gate}_")
        if host != name and host in HOSTS:
            return gate, host
    raise ConfigError(f"There is no model '{name}'.{did_you_mean(name, list_models())} list_models() lists all.")


def create_backbone(name: str, *, out_features: Sequence[str] = STAGES, **options: Any) -> nn.Module:
    """A trunk with random weights.

    Args:
        name: such as "rg_se_resnet50", see `list_models`; or "timm/<name>" for a network of timm's.
        out_features: the stages it returns.
        options: arguments of the host, such as `norm`, `padding`, `stride_in_1x1` (see `ResNet` and `TimmTrunk`).

    Raises:
        ConfigError: the name or an option's value is unknown.
    """
    if name.startswith(PREFIX):
        return TimmTrunk(name=name.removeprefix(PREFIX), out_features=out_features, **options)
    gate, host = parse_name(name)
    entry = HOSTS[host]
    return entry.build(**{**entry.arguments, "gate": gate, "out_features": out_features, **options})


def create_model(name: str, *, num_classes: int = 1000, **options: Any) -> Classifier:
    """A classifier with random weights; the arguments are those of `create_backbone`."""
    return Classifier(create_backbone(name, out_features=(STAGES[-1],), **options), num_classes=num_classes)
