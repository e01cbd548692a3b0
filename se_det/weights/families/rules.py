"""Key maps as data: pairs of templates, with a change of shape where there is one.

A template is a key with placeholders: `{s}` the stage 2..5, `{i}` the same counted from 1, `{b}` the block counted from
0, `{n}` from 1, `{k}` a convolution 1..3, `{stat}` a norm's tensors, `{wb}` weight or bias; `{m3}`, `{m4}`, `{m5}` the
modules of BN-Inception by stage, and `{layer}` a layer in one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import torch

PLACEHOLDERS = {
    "s": "[2-5]",
    "i": "[1-4]",
    "b": r"\d+",
    "n": r"[1-9]\d*",
    "k": "[1-3]",
    "stat": "weight|bias|running_mean|running_var|num_batches_tracked",
    "wb": "weight|bias",
    "m3": "3[ab]",
    "m4": "3c|4[a-d]",
    "m5": "4e|5[ab]",
    "layer": "1x1|3x3|3x3_reduce|double3x3_reduce|double3x3a|double3x3b|pool_proj",
}


@dataclass(frozen=True)
class Change:
    """A change of shape that loses nothing, in both directions."""

    to_ours: Callable[[torch.Tensor], torch.Tensor]
    from_ours: Callable[[torch.Tensor], torch.Tensor]


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(1)


# A fully connected layer written as a 1 x 1 convolution.
AS_CONVOLUTION = Change(lambda t: _flat(t) if t.ndim == 4 else t, lambda t: t[:, :, None, None])


@dataclass(frozen=True)
class Rule:
    """One line of a key map.

    Attributes:
        ours, theirs: templates with the same placeholders.
        stem: only for networks whose stem has this many convolutions.
    """

    ours: str
    theirs: str
    change: Change | None = None
    stem: int | None = None


def find(rules: Iterable[Rule], key: str, *, ours: bool) -> tuple[Rule, str] | None:
    """The first rule whose template matches `key`, and the key on the other side.

    Args:
        ours: `key` is one of ours; otherwise one of theirs.
    """
    for rule in rules:
        here, there = (rule.ours, rule.theirs) if ours else (rule.theirs, rule.ours)
        match = _compiled(here).fullmatch(key)
        if match:
            return rule, _write(there, match.groupdict())
    return None


@cache
def _compiled(template: str) -> re.Pattern[str]:
    seen: set[str] = set()

    def group(placeholder: re.Match[str]) -> str:
        name = placeholder[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{PLACEHOLDERS[name]})"

    # re.escape leaves the letters inside the braces as they are.
    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(template)))


def _write(template: str, values: dict[str, str]) -> str:
    values = dict(values)
    for one, other, step in (("s", "i", -1), ("b", "n", 1)):
        if one in values:
            values[other] = str(int(values[one]) + step)
        elif other in values:
            values[one] = str(int(values[other]) - step)
    return template.format(**values)
