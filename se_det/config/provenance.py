"""Who set a key: a file, the command line or code, or nobody, so that pretrained weights may still decide it."""

from __future__ import annotations

from typing import Any

from fvcore.common.config import CfgNode

from .defaults import get_cfg

# Kept in the root node's attributes, where CfgNode keeps its own: copies and pickles have it, `dump()` does not.
_RECORD = "__set_by__"


def record(cfg: CfgNode, key: str, value: Any, source: str | None) -> None:
    """Note that `source` gave `key` its value; None for a default or a shipped config's choice."""
    cfg.__dict__.setdefault(_RECORD, {})[key] = (value, source)


def key_source(cfg: CfgNode, key: str) -> str | None:
    """What the user set `key` with ("my.yaml", "the command line", "code"), or None where nobody did."""
    now = _value(cfg, key)
    recorded = cfg.__dict__.get(_RECORD, {})
    value, source = recorded[key] if key in recorded else (_value(get_cfg(), key), None)
    # An assignment leaves no trace but its value.
    return source if value == now else "code"


def user_keys(cfg: CfgNode) -> dict[str, str]:
    """The keys that files, the command line or code set and that are as they were set, with who set each."""
    recorded = cfg.__dict__.get(_RECORD, {})
    return {
        key: source for key, (value, source) in recorded.items() if source is not None and _value(cfg, key) == value
    }


def _value(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
