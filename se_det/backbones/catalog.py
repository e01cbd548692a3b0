"""Architectures as data: a host network is a line, and a model is `[gate_]host`.

SENet-154 has its gate in its name: `senet154` is the network with SE, and another gate goes before the name
(`sp_se_senet154`). Its trunk without gates has no name in the papers and none here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from ..errors import ConfigError, suggestion
from ..layers.gates import gate_names
from .bn_inception import BNInception
from .classifier import Classifier
from .inception_resnet import InceptionResNetV2
from .mobilenet import MobileNet
from .regnet import RegNet
from .resnet import ResNet
from .shufflenet import ShuffleNet
from .timm_trunk import PREFIX, TimmTrunk
from .trunk import STAGES, Trunk
from .vgg import VGG, VGGClassifier


@dataclass(frozen=True)
class Host:
    """A network that gates can be put into.

    Attributes:
        build, arguments: the function that makes the trunk, and that function's arguments.
        classifier: makes the classifier of a trunk.
        own_gate: the gate that the host's bare name means.
        in_classifier: arguments that the trunk of a classifier has besides.
    """

    build: Callable[..., Trunk]
    arguments: dict[str, Any] = field(default_factory=dict)
    classifier: Callable[..., nn.Module] = Classifier
    own_gate: str = "none"
    in_classifier: dict[str, Any] = field(default_factory=dict)


# Hu et al., arXiv 1709.01507, appendix: a ResNeXt-152 64x4d whose first 1 x 1s have half the channels, with 3 x 3
# projections and stem. Its weights have the stride in the 3 x 3 and pool the stem in ceil mode.
SENET154 = {
    "depth": 152, "groups": 64, "width_per_group": 4, "reduce_factor": 2, "projection_kernel": 3,
    "stem": "deep", "stem_channels": 128, "stem_pool": "ceil", "stride_in_1x1": False,
}  # fmt: skip

# Radosavovic et al., arXiv 2003.13678, by multiply-adds: what pycls, torchvision and Detectron2 build them from.
REGNET_X = {
    "400mf": {"depth": 22, "w_0": 24, "w_a": 24.48, "w_m": 2.54, "group_width": 16},
    "800mf": {"depth": 16, "w_0": 56, "w_a": 35.73, "w_m": 2.28, "group_width": 16},
    "4gf": {"depth": 23, "w_0": 96, "w_a": 38.65, "w_m": 2.43, "group_width": 40},
}
REGNET_Y = {
    "400mf": {"depth": 16, "w_0": 48, "w_a": 27.89, "w_m": 2.09, "group_width": 8},
    "800mf": {"depth": 14, "w_0": 56, "w_a": 38.84, "w_m": 2.4, "group_width": 16},
    "4gf": {"depth": 22, "w_0": 96, "w_a": 31.41, "w_m": 2.24, "group_width": 64},
}


HOSTS = {
    "resnet18": Host(ResNet, {"depth": 18}),
    "resnet34": Host(ResNet, {"depth": 34}),
    "resnet50": Host(ResNet, {"depth": 50}),
    "resnet101": Host(ResNet, {"depth": 101}),
    "resnet152": Host(ResNet, {"depth": 152}),
    "resnext50_32x4d": Host(ResNet, {"depth": 50, "groups": 32, "width_per_group": 4}),
    "resnext101_32x4d": Host(ResNet, {"depth": 101, "groups": 32, "width_per_group": 4}),
    "senet154": Host(ResNet, SENET154, classifier=partial(Classifier, dropout=0.2), own_gate="se"),
    "bn_inception": Host(BNInception),
    "vgg16_bn": Host(VGG, classifier=VGGClassifier),
    "mobilenet_v1": Host(MobileNet),
    "shufflenet_v1": Host(ShuffleNet),
    "inception_resnet_v2": Host(InceptionResNetV2, in_classifier={"aligned": False}),
    **{f"regnetx_{size}": Host(RegNet, arguments) for size, arguments in REGNET_X.items()},
    **{
        f"regnety_{size}": Host(RegNet, {**arguments, "inner_gate": True}, own_gate="se")
        for size, arguments in REGNET_Y.items()
    },
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern, such as "rg_se_*"."""
    names = []
    for host, entry in HOSTS.items():
        gates = [gate for gate in gate_names() if gate not in ("none", entry.own_gate)]
        names += [host, *(f"{gate}_{host}" for gate in gates)]
    return fnmatch.filter(names, pattern)


def is_model(name: str) -> bool:
    """Whether there is a model of this name."""
    return name in list_models()


def parse_name(name: str) -> tuple[str, str]:
    """(gate, host) of a model's name.

    Raises:
        ConfigError: there is no such model.
    """
    if name in HOSTS:
        return HOSTS[name].own_gate, name
    for gate in gate_names():
        host = name.removeprefix(f"{gate}_")
        if host != name and host in HOSTS and gate not in ("none", HOSTS[host].own_gate):
            return gate, host
    raise ConfigError(f"There is no model '{name}'.{suggestion(name, list_models())} list_models() lists all.")


def create_backbone(name: str, *, out_features: Sequence[str] = STAGES, **options: Any) -> Trunk | TimmTrunk:
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


def create_model(name: str, *, num_classes: int = 1000, **options: Any) -> nn.Module:
    """A classifier with random weights; the arguments are those of `create_backbone`."""
    if name.startswith(PREFIX):
        return Classifier(create_backbone(name, out_features=(STAGES[-1],), **options), num_classes=num_classes)
    entry = HOSTS[parse_name(name)[1]]
    trunk = create_backbone(name, **{**entry.in_classifier, "out_features": (STAGES[-1],), **options})
    return entry.classifier(trunk, num_classes=num_classes)
