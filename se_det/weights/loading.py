"""Putting the weights of a file into a network, with every key accounted for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ..backbones.gate_insertion import gated_branches
from ..backbones.timm_trunk import TimmTrunk
from ..errors import WeightsError
from ..layers.norms import FrozenBatchNorm2d
from .class_rows import ClassRows, class_layout
from .compatibility import check_network, resize_gates
from .identify import identify
from .load_report import LoadReport, shorten
from .reading import WeightFile
from .source import open_weights

logger = logging.getLogger(__name__)

# A trunk is recognised by its first convolution, in the network and in the file.
TRUNK_MARKER = "stem.conv1.weight"
HEAD_STAGE = "roi_heads.res5."
# Layers with a row for each anchor of a cell: with other anchors they start fresh.
ANCHOR_LAYERS = ("proposal_generator.rpn_head.objectness_logits.", "proposal_generator.rpn_head.anchor_deltas.")
TRUNK_PARTS = ("stem.", "res2.", "res3.", "res4.", "res5.")


def load_weights(
    model: nn.Module,
    source: str | Path | WeightFile,
    *,
    family: str = "",
    class_order: str | Path | None = None,
    allow_partial: bool = False,
    strict: bool = False,
    gate_init: str = "",
    class_names: Sequence[str] | None = None,
) -> LoadReport:
    """Load a file into a detector, a backbone or a classifier.

    The trunk's weights are found under any prefix, so those of a classifier start a detector and the other way round.

    Args:
        source: a path (see `read_weights` for the formats), `zoo://name`, a URL, or a file that was read.
        family, class_order: see `identify`.
        allow_partial: accept a file that does not hold the whole trunk, or more than it.
        strict: refuse a file that does not hold every weight of `model`, or is of other classes; for evaluation.
        gate_init: MODEL.GATE.INIT, for gates that the file has nothing for; "" is "identity" when the file has no
            gate at all (plain weights start a gated network).
        class_names: of the model's classes, in order. Where the file names its own, the rows of the predictors go to
            the classes of their names, and classes that the file does not have start fresh.

    Returns:
        the account, which is also logged.

    Raises:
        WeightsError: the file cannot be read; its weights need another network than `model`, or are of another
            family than `family`; it lacks part of the trunk; a shape differs; a weight is not finite, or one of a
            quantised network; its classes are others; a gate would be frozen without weights.
    """
    if not isinstance(source, WeightFile):
        foreign = _timm_trunk(model) is not None or _trunk_prefix(model.state_dict()) is None
        source, _ = open_weights(source, family=family, class_order=class_order, foreign=foreign)
    file = identify(source, family, class_order)
    check_network(model, file)
    report = load_tensors(model, file, allow_partial=allow_partial, strict=strict, class_names=class_names)
    _init_fresh_gates(model, file, report, gate_init)
    for line in report.summary().splitlines():
        logger.info(line)
    return report


def load_tensors(
    model: nn.Module,
    file: WeightFile,
    *,
    allow_partial: bool = False,
    strict: bool = False,
    class_names: Sequence[str] | None = None,
) -> LoadReport:
    """Copy the tensors of `file` into `model` by name; see `load_weights`."""
    source = f"{file.path} ({file.family})" if file.family not in ("", "se_det") else str(file.path)
    report = LoadReport(source)
    report.notes += [note for note in (file.averaged,) if note]
    timm_trunk = _timm_trunk(model)
    if timm_trunk is None:
        model_prefix = _trunk_prefix(model.state_dict())
        renamed = _renaming(file.tensors, model_prefix, model.state_dict())
    else:
        model_prefix, trunk = timm_trunk
        renamed = _timm_renaming(file, trunk, model_prefix)
    tensors = {renamed(name): tensor for name, tensor in file.tensors.items()}
    report.resized_gates = resize_gates(model, tensors)
    _check_classifier(model, file, report, allow_partial=allow_partial, strict=strict)
    targets = model.state_dict()
    if class_names is not None:
        _sort_classes(tensors, targets, file, report, tuple(class_names), strict=strict)
    changed = {renamed(name) for name in file.reshaped}
    fitting = {}
    for name, target in targets.items():
        if name.endswith("num_batches_tracked"):
            if name in tensors:
                fitting[name] = tensors[name]
            continue
        tensor = tensors.get(name)
        if tensor is None:
            report.missing.append(name)
        elif tensor.shape == target.shape:
            fitting[name] = tensor
            report.loaded.append(name)
            if name in changed:
                report.reshaped.append(name)
        elif _squeezed(tensor.shape) == _squeezed(target.shape):
            fitting[name] = tensor.reshape(target.shape)
            report.loaded.append(name)
            report.reshaped.append(name)
        elif (class_layout(name) or name.startswith(ANCHOR_LAYERS)) and not strict:
            report.missing.append(name)
            report.resized.append(name)
        else:
            raise WeightsError(
                f"{source}: {name} has the shape {tuple(tensor.shape)}, and this network's is {tuple(target.shape)}. "
                f"{_hint(name, tensor)}"
            )
    report.unexpected = [name for name in tensors if name not in targets and not name.endswith("num_batches_tracked")]
    _check_complete(report, model_prefix, allow_partial=allow_partial, strict=strict)
    if not allow_partial:
        _check_surplus(report, file, model_prefix)
    for name, tensor in fitting.items():
        check_values(tensor, targets[name], f"{source}: {name}")
    model.load_state_dict(fitting, strict=False)
    return report


def check_values(tensor: torch.Tensor, target: torch.Tensor, what: str) -> None:
    """Refuse values that no weight can have.

    Args:
        target: the parameter or buffer that they are for.
        what: the file and the key, for the sentence.

    Raises:
        WeightsError: whole numbers, or 8-bit ones, in the place of weights; numbers that are not finite.
    """
    if not target.is_floating_point():
        return
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        raise WeightsError(
            f"{what} is of {str(tensor.dtype).removeprefix('torch.')}: the file is of a quantised network, whose "
            "numbers mean nothing without their scales. Give the weights it was made from."
        )
    if not tensor.isfinite().all():
        raise WeightsError(
            f"{what} has values that are not finite: the training that made them has diverged, or the file is damaged. "
            "Use an earlier checkpoint."
        )


def _sort_classes(
    tensors: dict[str, torch.Tensor],
    targets: Mapping[str, torch.Tensor],
    file: WeightFile,
    report: LoadReport,
    names: tuple[str, ...],
    *,
    strict: bool,
) -> None:
    """Bring the rows of a file's predictors into the order of the network's classes, by their names."""
    predictors = [name for name in tensors if name in targets and (layout := class_layout(name)) and layout.named]
    if not predictors:
        return
    categories = file.extra.get("categories")
    if not categories:
        if any(tensors[name].shape == targets[name].shape for name in predictors):
            report.notes.append(
                f"The file does not name its classes: its {len(names)} are taken for the data's, in their order."
            )
        return
    rows = ClassRows(names, tuple(str(category["name"]) for category in categories))
    if rows.are_same:
        return
    if strict and not rows.are_permuted:
        raise WeightsError(
            f"{report.source} was trained on other classes: {rows.lists()}. Evaluate on data of the same class names."
        )
    if max(rows.sources) < 0:
        for name in predictors:
            del tensors[name]
    for name in predictors if max(rows.sources) >= 0 else ():
        tensors[name] = rows.take(name, tensors[name], targets[name], file.tensors)
    report.notes.append(rows.note())


def _trunk_prefix(names: Iterable[str]) -> str | None:
    for name in names:
        if name.endswith(TRUNK_MARKER):
            return name.removesuffix(TRUNK_MARKER)
    return None


def _renaming(names: Iterable[str], prefix: str | None, wanted: Iterable[str]) -> Callable[[str], str]:
    """What puts a file's trunk under the network's prefix, and its last stage to where the network has it: in the
    heads, where boxes go through it."""
    own = _trunk_prefix(names)
    if own is None or prefix is None:
        return lambda name: name
    inside = own or TRUNK_PARTS
    wanted = list(wanted)
    in_heads = any(name.startswith(HEAD_STAGE) for name in wanted)
    in_heads = in_heads and not any(name.startswith(HEAD_STAGE) for name in names)

    def renamed(name: str) -> str:
        if not name.startswith(inside):
            return name
        name = name.removeprefix(own)
        return f"roi_heads.{name}" if in_heads and name.startswith("res5.") else prefix + name

    return renamed


def _timm_trunk(model: nn.Module) -> tuple[str, TimmTrunk] | None:
    """The prefix of the parameters of timm's network in `model`, and its trunk, if it has one."""
    for name, module in model.named_modules():
        if isinstance(module, TimmTrunk):
            return f"{name}.net." if name else "net.", module
    return None


def _timm_renaming(file: WeightFile, trunk: TimmTrunk, prefix: str) -> Callable[[str], str]:
    """What puts a file's network of timm's under the network's prefix."""
    tensors = file.tensors
    if any(name.startswith(prefix) for name in tensors):
        return lambda name: name
    mark = trunk.marker_key()
    marks = [name.removesuffix(mark) for name in tensors if name == mark or name.endswith(f".{mark}")]
    if not marks:
        return lambda name: name
    own = min(marks, key=len)
    if own == "" and trunk.wrong_input:  # a file of timm's own; a checkpoint of ours has met this check
        raise WeightsError(f"{file.path}: {trunk.wrong_input}: change those keys.")
    return lambda name: prefix + name.removeprefix(own) if name.startswith(own) else name


def _squeezed(shape: torch.Size) -> list[int]:
    return [side for side in shape if side != 1]


def _check_complete(report: LoadReport, prefix: str | None, *, allow_partial: bool, strict: bool) -> None:
    if not report.loaded:
        raise WeightsError(
            f"{report.source}: none of its {len(report.unexpected)} keys is one of this network's "
            f"(it has {shorten(report.unexpected, 3)})."
        )
    if strict and report.missing:
        raise WeightsError(
            f"{report.source} lacks {len(report.missing)} of this network's weights: {shorten(report.missing)}. "
            "Evaluate with the config that the weights were trained with."
        )
    if allow_partial or prefix is None:
        return
    parts = (prefix, HEAD_STAGE)
    trunk = [name for name in report.missing if name.startswith(parts) and ".gate." not in name]
    trunk = [name for name in trunk if prefix != "" or not class_layout(name)]
    gates = [name for name in report.missing if name.startswith(parts) and ".gate." in name]
    some_gates = any(".gate." in name for name in report.loaded)
    lacking = trunk + (gates if some_gates else [])
    if lacking:
        raise WeightsError(
            f"{report.source} lacks {len(lacking)} weights of the backbone: {shorten(lacking)}. Check MODEL.RESNETS "
            "and MODEL.GATE against the file, or allow it with --allow-partial."
        )


def _check_surplus(report: LoadReport, file: WeightFile, prefix: str | None) -> None:
    """Refuse weights of parts that this network's trunk lacks: without them the others are of no use."""
    parts = list(file.unknown_parts)
    if prefix is not None:
        parts += [name for name in report.unexpected if name.startswith(tuple(prefix + part for part in TRUNK_PARTS))]
    # MSRA's stem convolution has a bias that Detectron2 does not load either.
    parts = [name for name in parts if not name.endswith("stem.conv1.bias")]
    if parts:
        raise WeightsError(
            f"{report.source} has weights of the backbone that this network has no place for: {shorten(parts)}. Check "
            "MODEL.RESNETS and MODEL.GATE against the file, or allow it with --allow-partial."
        )


def _check_classifier(
    model: nn.Module, file: WeightFile, report: LoadReport, *, allow_partial: bool, strict: bool
) -> None:
    """A classifier whose classes are in an unknown order is not loaded, and not passed over in silence."""
    if not file.unordered_classes:
        return
    report.notes.append(
        f"The file's classifier is left out: the order of its {file.unordered_classes} classes is not the standard one."
    )
    width = next((len(weight) for name, weight in model.state_dict().items() if name == "linear.weight"), 0)
    if width == file.unordered_classes and (strict or not allow_partial):
        raise WeightsError(
            f"{report.source} has its {width} classes in the order of the SENet authors, not the standard one: "
            "convert it with `se-det convert-weights --class-order FILE` (one synset a line, in the file's order), or "
            "load the backbone only with --allow-partial."
        )


def _hint(name: str, tensor: torch.Tensor) -> str:
    if name.endswith("gate.fc1.weight") and len(tensor):
        return f"The gates have another hidden width: set MODEL.GATE.REDUCTION {tensor.shape[1] // len(tensor)}."
    return "The file is of another architecture (MODEL.RESNETS, MODEL.GATE, MODEL.FPN) or number of classes."


def _init_fresh_gates(model: nn.Module, file: WeightFile, report: LoadReport, gate_init: str) -> None:
    """Gates without weights are trained, and leave the network's function as it is unless told otherwise."""
    missing = set(report.missing)
    for branch in gated_branches(model):
        name, gate = branch.name, branch.gate
        lacking = {key for key in gate.state_dict() if f"{branch.gate_name}.{key}" in missing}
        if not lacking:
            continue
        report.fresh_gates.append(name)
        frozen = [path for path, m in gate.named_modules() if isinstance(m, FrozenBatchNorm2d)]
        if any(key.startswith(f"{path}.") for path in frozen for key in lacking):
            what = "the gate" if "fc1.weight" in lacking else "parts of the gate"
            raise WeightsError(
                f"{file.path} has no weights for {what} of {name}, whose norm would be frozen at its initial values: "
                "set MODEL.GATE.NORM GN (or BN) and, if that block is frozen, MODEL.BACKBONE.FREEZE_AT 0."
            )
        gate.requires_grad_(True)
        if "fc1.weight" not in lacking:  # an SE gate's weights start an SP or RG one: the rest keeps its initial values
            continue
        own = next(key for key in branch.block.state_dict() if "gate." not in key)
        plain = f"{name}.{own}" not in missing and not any(".gate." in key for key in file.tensors)
        if gate_init == "identity" or (gate_init == "" and plain and branch.can_preserve_function):
            branch.preserve_function()
