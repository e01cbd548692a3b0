"""Tensors of a family under our names, and ours under a family's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ...errors import WeightsError
from .family import Family, Tensors
from .rules import find

# What tells stems of more than one convolution in the keys of other programs, by their number.
STEMS = {3: r"^conv1\.6\.|^conv1_3[/_]", 4: r"^features\.0\."}


@dataclass
class Converted:
    """What came of a conversion.

    Attributes:
        tensors: under the other side's names.
        reshaped: names of those whose shape was changed.
        unknown: keys of the source that the family has no rule for.
    """

    tensors: Tensors = field(default_factory=dict)
    reshaped: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def to_ours(source: str, tensors: Mapping[str, torch.Tensor], family: Family) -> Converted:
    """Tensors of `family` under our names; what no rule knows keeps its name.

    Args:
        source: the file, for the sentence.

    Raises:
        WeightsError: the network has parts that no network here has.
    """
    for pattern, what in family.foreign:
        if any(re.search(pattern, key) for key in tensors):
            raise WeightsError(f"{source} has {what}, which no network here has.")
    try:
        theirs = family.unpack(dict(tensors))
    except (WeightsError, RuntimeError) as error:
        raise WeightsError(f"{source}: {error}") from error
    stem = next((count for count, pattern in STEMS.items() if any(re.search(pattern, key) for key in theirs)), 1)
    result = Converted()
    for key, tensor in theirs.items():
        found = find((rule for rule in family.rules if rule.stem in (None, stem)), key, ours=False)
        if found is None:
            result.tensors[key] = tensor
            if family.rules and re.match(family.trunk, key):
                result.unknown.append(key)
            continue
        rule, name = found
        changed = rule.change.to_ours(tensor) if rule.change else tensor
        if changed.shape != tensor.shape:
            result.reshaped.append(name)
        result.tensors[name] = changed
    return result


def from_ours(tensors: Mapping[str, torch.Tensor], family: Family) -> Converted:
    """Our tensors under the names of `family`; what it has no name for is left out, and listed in `unknown`."""
    if not family.rules:
        return Converted(dict(tensors))
    stem = sum(re.fullmatch(r"stem\.conv\d\.weight", name) is not None for name in tensors)
    result = Converted()
    own = family.name == "detectron2"  # whose names are ours but for the classifier's
    for name, tensor in tensors.items():
        found = find((rule for rule in family.rules if rule.stem in (None, stem)), name, ours=True)
        if found is None:
            if own:
                result.tensors[name] = tensor
            else:
                result.unknown.append(name)
            continue
        rule, key = found
        changed = rule.change.from_ours(tensor) if rule.change else tensor
        if changed.shape != tensor.shape:
            result.reshaped.append(key)
        result.tensors[key] = changed
    packed = family.pack(result.tensors)
    result.tensors = {family.prefix + key: tensor for key, tensor in packed.items()}
    return result


def strip_prefix(tensors: Mapping[str, torch.Tensor]) -> tuple[Tensors, list[str]]:
    """Our tensors of a trunk and its classifier, without the prefix that a classifier or a detector gives the trunk.

    Returns:
        the tensors, and the names of those that belong to neither.
    """
    mark = next((name for name in tensors if name.endswith("stem.conv1.weight")), "stem.conv1.weight")
    prefix = mark.removesuffix("stem.conv1.weight")
    inside = tuple(prefix + part for part in ("stem.", "res2.", "res3.", "res4.", "res5."))
    kept = {name: name.removeprefix(prefix) for name in tensors if name.startswith((*inside, "linear.", "hidden"))}
    return {new: tensors[old] for old, new in kept.items()}, [name for name in tensors if name not in kept]
