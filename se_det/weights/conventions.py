"""The config keys that weights decide: where nobody chose; where the user says otherwise, they are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from ..config.loading import flatten, get_key, parse_yaml
from ..config.provenance import key_source
from ..config.resolution import Decision, plain, show
from ..errors import ConfigError
from .families.conventions import WeightConventions, is_close

# Config key to the attribute of `WeightConventions`.
KEYS = {
    "MODEL.RESNETS.STRIDE_IN_1X1": "stride_in_1x1",
    "MODEL.RESNETS.STEM_POOL": "stem_pool",
    "MODEL.RESNETS.BRANCH_RELU": "branch_relu",
    "INPUT.FORMAT": "input_format",
    "MODEL.PIXEL_MEAN": "pixel_mean",
    "MODEL.PIXEL_STD": "pixel_std",
}


def config_keys(facts: WeightConventions) -> dict[str, Any]:
    """Config key to value, of the facts that are known."""
    values = {key: getattr(facts, name) for key, name in KEYS.items()}
    return {key: plain(value) for key, value in values.items() if value is not None}


def saved_keys(config: Any) -> dict[str, Any]:
    """These keys' values in the YAML config that a checkpoint of ours carries; {} when `config` is none."""
    try:
        metadata = dict(flatten(parse_yaml(config, "config"))) if isinstance(config, str) else {}
    except ConfigError:
        return {}
    return {key: metadata[key] for key in KEYS if key in metadata}


def key_decisions(cfg: CfgNode, wanted: Mapping[str, Any], source: str) -> list[Decision]:
    """What the weights of `source` need, where `cfg` has something else.

    Raises:
        ConfigError: the user set one of the keys to something else.
    """
    decisions, refused = [], []
    for key, value in wanted.items():
        now = get_key(cfg, key)
        if plain(now) == plain(value):
            continue
        who = key_source(cfg, key)
        if who is None:
            decisions.append(Decision(key, value, source))
        elif not (isinstance(value, list) and is_close(tuple(now), tuple(value))):
            refused.append(f"{key} is {show(now)} ({who}), and they need {show(value)}")
    if refused:
        raise ConfigError(
            f"The weights of {source} do not fit the config: {'; '.join(refused)}. Leave "
            f"{'that key' if len(refused) == 1 else 'those keys'} out, or give other weights with MODEL.WEIGHTS."
        )
    return decisions
