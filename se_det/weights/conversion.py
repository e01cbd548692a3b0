"""Converting weight files between families: from any to ours, or to another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ..backbones import create_backbone, list_models
from ..backbones.catalog import parse_name
from ..errors import WeightsError
from ..files import atomic_write
from .families import SE_DET, WeightConventions, differences, family_named
from .families.class_order import read_class_order
from .families.conventions import is_grouped
from .families.conversion import from_ours, strip_prefix
from .identify import HEAD, identify
from .load_report import shorten
from .reading import WeightFile

WRITABLE = (".safetensors", ".pth")
# What tells the gates apart; those after SE have its part as well.
GATE_PARTS = {"sp_se": "dw1", "rg_se": "dw", "cbam": "spatial", "se": "fc1"}
COUNTER = "num_batches_tracked"  # of a batch norm, which not every program keeps


@dataclass
class Conversion:
    """Converted tensors, and what is known about them.

    Attributes:
        family: the family whose names the tensors have now.
        origin: the family of the source file.
        facts: what the weights need of a network and its input.
        architecture: the model's name; "" if it is not in the catalog.
        dropped: keys of the source that the new family has no name for.
        notes: sentences about what was left out on purpose.
        extra: a detector's config and categories, as a checkpoint of ours carries them.
    """

    tensors: dict[str, torch.Tensor]
    family: str
    origin: str
    facts: WeightConventions
    architecture: str
    dropped: list[str]
    notes: list[str]
    extra: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> str:
        """A few lines to log."""
        what = self.architecture or "an architecture that is not in the catalog"
        lines = [f"{self.origin} ({what}) to {self.family}: {len(self.tensors)} tensors."]
        if self.dropped:
            lines.append(f"  left out, without a name in {self.family}: {shorten(self.dropped)}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def convert(
    source: str | Path | WeightFile, *, family: str = "", to: str = SE_DET.name, class_order: str | Path | None = None
) -> Conversion:
    """The weights of a file under the names of the family `to`.

    Args:
        family: the family the file is of; "" finds out.
        class_order: the order of the classes of whichever family does not have the standard one.

    Raises:
        WeightsError: the file cannot be read or is of another family; the networks of `to` have other strides, stem
            pooling or input, so that whoever reads the new file would take the weights for what they are not.
    """
    target = family_named(to)
    if target.detector is not None:
        raise WeightsError(f"Files of {to} are read, and not written: convert to se_det.")
    ordered = target.facts(None).class_order == "caffe"
    file = identify(source, family, None if ordered else class_order)
    if file.unknown_parts:
        raise WeightsError(f"{file.path} has parts that no network here has: {shorten(list(file.unknown_parts))}.")
    detector = family_named(file.family).detector is not None
    if detector and target is not SE_DET:
        raise WeightsError(
            f"{file.path} is a detector of {file.family}: convert it to se_det, whose names it has then."
        )
    tensors, dropped = (file.tensors, []) if detector else strip_prefix(file.tensors)
    notes = []
    if file.unordered_classes:
        notes.append(
            f"The classifier is left out: give --class-order with the order of its {file.unordered_classes} classes."
        )
    _check_facts(file, target.name, replace(target.facts(is_grouped(tensors)), class_order=None))
    facts = file.facts
    if ordered and HEAD[0] in tensors:
        tensors, facts = _in_order_of(tensors, facts, class_order, notes)
    result = from_ours(tensors, target)
    lost = [name for name in result.unknown if not name.endswith(COUNTER)]
    if lost:
        raise WeightsError(
            f"{file.path} ({file.family}) cannot become a file of {to}, which has no keys for {shorten(lost)}."
        )
    if target.rules and not file.facts.plain():
        notes.append(f"Nothing tells what network these weights need: see that it is what everybody expects of {to}.")
    return Conversion(
        tensors=result.tensors,
        family=target.name,
        origin=file.family,
        facts=facts,
        architecture=architecture_of(strip_prefix(tensors)[0]),
        dropped=dropped + result.unknown,
        notes=notes,
        extra={key: file.extra[key] for key in ("config", "categories") if detector and key in file.extra},
    )


def write_weights(path: str | Path, conversion: Conversion) -> None:
    """Write a `.safetensors` or `.pth` file, whole or not at all, with what is known of the weights.

    Raises:
        WeightsError: the ending is another one.
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    tensors = {name: tensor.clone().contiguous() for name, tensor in conversion.tensors.items()}
    known = {"family": conversion.family, "origin": conversion.origin, "network": conversion.architecture}
    facts = conversion.facts.plain()
    if path.suffix == ".safetensors":
        about = {"se_det": json.dumps(conversion.extra)} if conversion.extra else {}
        data = safetensors.torch.save(tensors, {**known, **about, "facts": json.dumps(facts), "format": "pt"})
        atomic_write(path, lambda file: file.write(data))
    elif path.suffix == ".pth":
        content: dict[str, Any] = {"model": tensors, **known, "facts": facts, **conversion.extra}
        atomic_write(path, lambda file: torch.save(content, file))
    else:
        raise WeightsError(f"{path} has an unknown ending: converted weights are {' or '.join(WRITABLE)}.")


def architecture_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """The model whose trunk has these tensors, "" if there is none.

    Args:
        tensors: under our names, without a prefix.
    """
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if not name.startswith(("linear.", "hidden")) and not name.endswith(COUNTER)
    }
    gate = next((gate for gate, part in GATE_PARTS.items() if any(f".gate.{part}." in name for name in shapes)), "none")
    for name in list_models():
        if parse_name(name)[0] == gate and _shapes(name) == shapes:
            return name
    return ""


@cache
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = create_backbone(name).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items() if not key.endswith(COUNTER)}


def _check_facts(file: WeightFile, to: str, facts: WeightConventions) -> None:
    wrong = differences(file.facts, facts)
    if wrong:
        told = ", ".join(f"{name} {getattr(file.facts, name)} and not {getattr(facts, name)}" for name in wrong)
        raise WeightsError(
            f"{file.path} ({file.family}) cannot become a file of {to}: under its keys everybody expects other "
            f"networks, and these weights have {told}. Convert to se_det, which keeps what they need beside them."
        )


def _in_order_of(
    tensors: dict[str, torch.Tensor], facts: WeightConventions, class_order: str | Path | None, notes: list[str]
) -> tuple[dict[str, torch.Tensor], WeightConventions]:
    """The classifier in the order of the SENet authors, or left out where that order is not given."""
    if class_order is None:
        notes.append("The classifier is left out: give --class-order with the order of its classes in the new file.")
        return {name: tensor for name, tensor in tensors.items() if name not in HEAD}, facts
    order = read_class_order(class_order)
    if len(order) != len(tensors[HEAD[0]]):
        raise WeightsError(
            f"The class order {class_order} has {len(order)} classes, and the classifier {len(tensors[HEAD[0]])}."
        )
    back = torch.argsort(order)
    moved = {name: tensor[back] if name in HEAD else tensor for name, tensor in tensors.items()}
    return moved, replace(facts, class_order="caffe")
