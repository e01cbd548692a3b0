"""What weights need from the network and its input that no key or shape of a file shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from fvcore.common.config import CfgNode
from torch import nn

from ..backbones.blocks import Bottleneck
from ..backbones.stem import BasicStem
from ..config.loading import get_value, leaves
from ..config.origins import record, set_by
from ..errors import ConfigError, WeightsError

logger = logging.getLogger(__name__)


# Config key to the attribute of `Conventions`.
KEYS = {
    "MODEL.RESNETS.STRIDE_IN_1X1": "stride_in_1x1",
    "MODEL.RESNETS.STEM_POOL": "stem_pool",
    "INPUT.FORMAT": "input_format",
    "MODEL.PIXEL_MEAN": "pixel_mean",
    "MODEL.PIXEL_STD": "pixel_std",
}


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """The five facts; None where the network has no such choice (basic blocks have no 1x1 to put a stride in).

    Attributes:
        stride_in_1x1: a strided bottleneck has its stride in the first 1x1 convolution, not in the 3x3.
        stem_pool: "pad1" or "ceil", see `BasicStem`.
        input_format: order of the image's channels, "RGB" or "BGR".
        pixel_mean, pixel_std: of these channels, on the 0..255 scale.
    """

    stride_in_1x1: bool | None
    stem_pool: str | None
    input_format: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

    def keys(self) -> dict[str, Any]:
        """Config key to value, of those that apply."""
        values = {key: getattr(self, name) for key, name in KEYS.items()}
        return {key: _plain(value) for key, value in values.items() if value is not None}


def saved_keys(config: Any) -> dict[str, Any]:
    """These keys' values in the YAML config that a checkpoint of ours carries; {} when `config` is none."""
    try:
        tree = yaml.safe_load(config) if isinstance(config, str) else None
    except yaml.YAMLError:
        return {}
    said = dict(leaves(tree)) if isinstance(tree, Mapping) else {}
    return {key: said[key] for key in KEYS if key in said}


def set_keys(cfg: CfgNode, wanted: Mapping[str, Any], source: str) -> None:
    """Set in `cfg` what the weights of `source` need; log what changed.

    Raises:
        ConfigError: the user set one of the keys to something else.
    """
    changes, refused = [], []
    for key, value in wanted.items():
        now = get_value(cfg, key)
        if _plain(now) == _plain(value):
            continue
        who = set_by(cfg, key)
        if who is not None:
            refused.append(f"{key} is {_show(now)} ({who}), and they need {_show(value)}")
        else:
            changes.append((key, value, f"{key} {_show(value)} (was {_show(now)})"))
    if refused:
        raise ConfigError(
            f"The weights of {source} do not fit the config: {'; '.join(refused)}. Leave "
            f"{'that key' if len(refused) == 1 else 'those keys'} out, or give other weights with MODEL.WEIGHTS."
        )
    for key, value, _ in changes:
        assign(cfg, key, value)
    if changes:
        logger.info("%s sets %s.", source, ", ".join(text for _, _, text in changes))


def assign(cfg: CfgNode, key: str, value: Any) -> None:
    """Give a key a value that is not the user's choice."""
    *parents, name = key.split(".")
    node = cfg
    for part in parents:
        node = node[part]
    node[name] = value
    record(cfg, key, value, None)


def check_network(model: nn.Module, wanted: Conventions, source: str) -> None:
    """Refuse a network that these weights would fit by name and shape, and be wrong in.

    Raises:
        WeightsError: its stride or its stem's pooling is elsewhere.
    """
    for module in model.modules():
        if isinstance(module, BasicStem) and wanted.stem_pool is not None:
            pool = "ceil" if module.ceil_mode else "pad1"
            _compare("MODEL.RESNETS.STEM_POOL", "stem_pool", pool, wanted.stem_pool, source)
        if isinstance(module, Bottleneck) and wanted.stride_in_1x1 is not None:
            strides = module.conv1.stride[0], module.conv2.stride[0]
            if strides != (1, 1):
                first = strides[0] > 1
                _compare("MODEL.RESNETS.STRIDE_IN_1X1", "stride_in_1x1", first, wanted.stride_in_1x1, source)


def _compare(key: str, argument: str, has: Any, needs: Any, source: str) -> None:
    if has != needs:
        raise WeightsError(
            f"The weights of {source} need {key} {needs}, and this network was built with {has}: their keys and shapes "
            f"are alike and its results would be wrong. Build it with {argument}={needs!r}."
        )


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _show(value: Any) -> str:
    return str(_plain(value)).replace("'", "")
