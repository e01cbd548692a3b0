"""From the config that was asked for to the one that is run: facts decide keys, and each decision has its reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fvcore.common.config import CfgNode

from . import provenance
from .loading import get_key, set_key
from .paths import expand_paths

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """What a fact says of a key.

    Attributes:
        key: such as "MODEL.DEVICE".
        value: what it is from now on.
        source: who decides: a file, "this machine", "the recipe".
        reason: why, for a sentence; "" where the source says it.
    """

    key: str
    value: Any
    source: str
    reason: str = ""


class Resolution:
    """A config while it is resolved. Nothing but this changes a run's config, and nothing does afterwards.

    Args:
        asked: as files and the command line gave it; not changed. Its paths are expanded.

    Attributes:
        cfg: the config so far, to be read.

    Raises:
        ConfigError: a path with a variable or user that is unknown.
    """

    def __init__(self, asked: CfgNode) -> None:
        self.cfg = asked.clone()
        self.cfg.defrost()
        expand_paths(self.cfg)

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Set what is decided, and log what that changes."""
        changes = []
        for decision in decisions:
            before = get_key(self.cfg, decision.key)
            if plain(before) != plain(decision.value):
                _assign(self.cfg, decision)
                changes.append((decision, before))
        for (source, reason), same in groupby(changes, lambda change: (change[0].source, change[0].reason)):
            keys = ", ".join(f"{d.key} {show(d.value)} (was {show(before)})" for d, before in same)
            logger.info("%s sets %s%s.", source, keys, f": {reason}" if reason else "")

    def finish(self, *checks: Callable[[CfgNode], None]) -> CfgNode:
        """The config, checked and frozen.

        Args:
            checks: each refuses by an error.
        """
        for check in checks:
            check(self.cfg)
        self.cfg.freeze()
        return self.cfg


def decided_by(cfg: CfgNode) -> list[Decision]:
    """The decisions that `cfg` was resolved by and that still stand, in order."""
    made: dict[str, Decision] = cfg.__dict__.get(_DECISIONS, {})
    return [d for d in made.values() if plain(get_key(cfg, d.key)) == plain(d.value)]


def dump_config(cfg: CfgNode) -> str:
    """`cfg` as YAML, below comments that say which keys were set by whom, and why."""
    decided = decided_by(cfg)
    lines = [f"#   {d.key}: {show(d.value)} by {d.source}{f' ({d.reason})' if d.reason else ''}" for d in decided]
    given = provenance.user_keys(cfg)
    lines += [f"#   {key}: {show(get_key(cfg, key))} by {source}" for key, source in given.items()]
    head = ["# Set for this run, beside the defaults and the shipped config's choices:", *lines] if lines else []
    return "".join(f"{' '.join(line.splitlines())}\n" for line in head) + cfg.dump()


# In the root node's attributes, as provenance's record is.
_DECISIONS = "__decisions__"


def _assign(cfg: CfgNode, decision: Decision) -> None:
    set_key(cfg, decision.key, decision.value)
    provenance.record(cfg, decision.key, decision.value, None)  # not the user's choice
    made = cfg.__dict__.setdefault(_DECISIONS, {})
    made.pop(decision.key, None)
    made[decision.key] = decision


def plain(value: Any) -> Any:
    """Lists for tuples: YAML does not tell them apart."""
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def show(value: Any) -> str:
    """A value for a sentence."""
    return str(plain(value)).replace("'", "")
