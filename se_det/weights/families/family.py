"""A family: the programs that write weights under the same keys, with the same facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
        marks: patterns of which each must be found in some key.
        without: patterns of which none may be found in any key.
        rules: the key map; empty where the names are ours.
        facts: of the grouped networks (True), the plain ones (False) and those without bottlenecks (None).
        prefix: before every key, where a program writes one; reading does without.
        trunk: the keys of a network's trunk: one that no rule knows is a part that our network lacks.
        foreign: (pattern, what it is) of parts that no network here has.
        unpack, pack: put several of their tensors together to one of ours before the rules, and apart after them.
        like: families whose files may be named by this one's name, as their keys are its own too.
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
    like: tuple[str, ...] = ()

    def matches(self, keys: Mapping[str, torch.Tensor]) -> bool:
        """Whether these are the keys of one of its files."""
        return all(any(re.search(mark, key) for key in keys) for mark in self.marker_keys) and not any(
            re.search(pattern, key) for key in keys for pattern in self.forbidden_keys
        )
