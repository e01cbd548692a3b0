"""A family: the programs that write weights under the same keys, with the same facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .conventions import WeightConventions
from .rules import Rule

Tensors = dict[str, torch.Tensor]


def _identity(tensors: Tensors) -> Tensors:
    return tensors


@dataclass(frozen=True, kw_only=True)
class Family:
    """One line of `FAMILIES`.

    Attributes:
        about: whose weights they are.
        marker_keys: patterns, each of which must match some key.
        forbidden_keys: patterns, none of which may match any key.
        rules: the key map; empty if the names are ours.
        facts: the conventions of networks with grouped convolutions (True), with plain ones (False) and without
            bottlenecks (None).
        prefix: written before every key by the family's program; not needed for reading.
        trunk: pattern of the keys of the trunk; such a key without a rule is a part that our networks do not have.
        foreign: (pattern, description) of parts that no network here has.
        unpack, pack: join several of the family's tensors to one of ours before the rules, and split them after.
        detector: the config, key to value on the defaults, that a detector of these tensors, under our names, needs;
            None for families of classifiers and backbones. Files of detectors are read, not written.
        classes: the list of classes (a file of model_zoo/classes) that tensors of theirs tell, if any.
        like: families with the same keys, whose files may be given under this family's name.
    """

    name: str
    about: str
    marker_keys: tuple[str, ...]
    forbidden_keys: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    facts: Callable[[bool | None], WeightConventions] = lambda grouped: WeightConventions()
    prefix: str = ""
    trunk: str = r"(conv1|bn1|layer\d)\b"
    foreign: tuple[tuple[str, str], ...] = ()
    unpack: Callable[[Tensors], Tensors] = _identity
    pack: Callable[[Tensors], Tensors] = _identity
    detector: Callable[[Tensors], dict[str, Any]] | None = None
    classes: Callable[[Tensors], str | None] = lambda tensors: None
    like: tuple[str, ...] = ()

    def matches(self, keys: Mapping[str, torch.Tensor]) -> bool:
        """Whether these are the keys of one of its files."""
        return all(any(re.search(mark, key) for key in keys) for mark in self.marker_keys) and not any(
            re.search(pattern, key) for key in keys for pattern in self.forbidden_keys
        )
