"""The config keys that weights decide: set where nobody chose, refused where the user says otherwise."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from ..config.loading import flatten, get_key, parse_yaml
from ..config.provenance import key_source, record
from ..errors import ConfigError
from .families.conventions import WeightConventions, is_close

logger = logging.getLogger(__name__)

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
    return {key: _plain(value) for key, value in values.items() if value is not None}


def saved_keys(config: Any) -> dict[str, Any]:
    """These keys' values in the YAML config that a checkpoint of ours carries; {} when `config` is none."""
    try:
        metadata = dict(flatten(parse_yaml(config, "config"))) if isinstance(config, str) else {}
    except ConfigError:
        return {}
    return {key: metadata[key] for key in KEYS if key in metadata}


def apply_keys(cfg: CfgNode, wanted: Mapping[str, Any], source: str) -> None:
    """Set in `cfg` what the weights of `source` need; log what changed.

    Raises:
        ConfigError: the user set one of the keys to something else.
    """
    changes, refused = [], []
    for key, value in wanted.items():
        now = get_key(cfg, key)
        if _plain(now) == _plain(value):
            continue
        who = key_source(cfg, key)
        if who is None:
            changes.append((key, value, f"{key} {_show(value)} (was {_show(now)})"))
        elif not (isinstance(value, list) and is_close(tuple(now), tuple(value))):
            refused.append(f"{key} is {_show(now)} ({who}), and they need {_show(value)}")
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


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _show(value: Any) -> str:
    return str(_plain(value)).replace("'", "")
