"""Putting the weights of a file into a network, with every key accounted for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from ..backbones.insertion import gated_branches
from ..backbones.timm_trunk import TimmTrunk
from ..errors import WeightsError
from ..layers.norms import FrozenBatchNorm2d
from .account import Account, shorten
from .reading import WeightFile, read_weights

logger = logging.getLogger(__name__)

# A trunk is recognised by its first convolution, in the network and in the file.
TRUNK_MARK = "stem.conv1.weight"
# Layers whose shape follows the number of classes: a detector of other classes may start from the rest.
PREDICTORS = (
    "roi_heads.box_predictor.cls_score.",
    "roi_heads.box_predictor.bbox_pred.",
    "roi_heads.mask_head.predictor.",
    "linear.",
)


def load_weights(
    model: nn.Module,
    source: str | Path | WeightFile,
    *,
    allow_partial: bool = False,
    whole: bool = False,
    gate_init: str = "",
) -> Account:
    """Load a file into a detector, a backbone or a classifier.

    The trunk's weights are found under any prefix, so those of a classifier start a detector and the other way round.

    Args:
        source: a `.pth` or `.safetensors` file, or one that was read.
        allow_partial: accept a file that does not hold the whole trunk.
        whole: refuse a file that does not hold every weight of `model`; for evaluation.
        gate_init: MODEL.GATE.INIT, for gates that the file has nothing for; "" is "identity" when the file has no
            gate at all (plain weights start a gated network).

    Returns:
        the account, which is also logged.

    Raises:
        WeightsError: the file cannot be read; it lacks part of the trunk; a shape differs; a gate would be frozen
            without weights.
    """
    file = source if isinstance(source, WeightFile) else read_weights(source)
    account = fill(model, file, allow_partial=allow_partial, whole=whole)
    _settle_fresh_gates(model, file, account, gate_init)
    for line in account.summary().splitlines():
        logger.info(line)
    return account


def fill(model: nn.Module, file: WeightFile, *, allow_partial: bool = False, whole: bool = False) -> Account:
    """Copy the tensors of `file` into `model` by name; see `load_weights`."""
    source = f"{file.path} (averaged weights)" if file.averaged else str(file.path)
    account = Account(source)
    targets = model.state_dict()
    timm_trunk = _timm_trunk(model)
    if timm_trunk is None:
        model_prefix = _trunk_prefix(targets)
        tensors = _with_prefix(file, model_prefix)
    else:
        model_prefix, trunk = timm_trunk
        tensors = _timm_tensors(file, trunk, model_prefix)
    fitting = {}
    for name, target in targets.items():
        if name.endswith("num_batches_tracked"):
            if name in tensors:
                fitting[name] = tensors[name]
            continue
        tensor = tensors.get(name)
        if tensor is None:
            account.missing.append(name)
        elif tensor.shape == target.shape:
            fitting[name] = tensor
            account.loaded.append(name)
        elif _squeezed(tensor.shape) == _squeezed(target.shape):
            fitting[name] = tensor.reshape(target.shape)
            account.loaded.append(name)
            account.reshaped.append(name)
        elif name.startswith(PREDICTORS) and not whole:
            account.missing.append(name)
            account.resized.append(name)
        else:
            raise WeightsError(
                f"{source}: {name} has the shape {tuple(tensor.shape)}, and this network's is {tuple(target.shape)}. "
                "The file is of another architecture (MODEL.RESNETS, MODEL.GATE, MODEL.FPN) or number of classes."
            )
    account.unexpected = [name for name in tensors if name not in targets and not name.endswith("num_batches_tracked")]
    _check_complete(account, model_prefix, allow_partial=allow_partial, whole=whole)
    model.load_state_dict(fitting, strict=False)
    return account


def _trunk_prefix(names: Iterable[str]) -> str | None:
    for name in names:
        if name.endswith(TRUNK_MARK):
            return name.removesuffix(TRUNK_MARK)
    return None


def _with_prefix(file: WeightFile, prefix: str | None) -> dict[str, torch.Tensor]:
    """The file's tensors, with its trunk under the network's prefix."""
    own = _trunk_prefix(file.tensors)
    if own is None or prefix is None or own == prefix:
        return file.tensors
    if own:
        return {
            prefix + name.removeprefix(own) if name.startswith(own) else name: tensor
            for name, tensor in file.tensors.items()
        }
    stages = ("stem.", "res2.", "res3.", "res4.", "res5.")
    return {prefix + name if name.startswith(stages) else name: tensor for name, tensor in file.tensors.items()}


def _timm_trunk(model: nn.Module) -> tuple[str, TimmTrunk] | None:
    """The prefix of the parameters of timm's network in `model`, and its trunk, if it has one."""
    for name, module in model.named_modules():
        if isinstance(module, TimmTrunk):
            return f"{name}.net." if name else "net.", module
    return None


def _timm_tensors(file: WeightFile, trunk: TimmTrunk, prefix: str) -> dict[str, torch.Tensor]:
    """The file's tensors, with timm's network under the network's prefix, wherever the file has it."""
    if any(name.startswith(prefix) for name in file.tensors):
        return file.tensors
    mark = trunk.weights_mark()
    found = [name.removesuffix(mark) for name in file.tensors if name == mark or name.endswith(f".{mark}")]
    if not found:
        return file.tensors
    own = min(found, key=len)
    if own == "" and trunk.wrong_input:  # a file of timm's own; a checkpoint of ours has met this check
        raise WeightsError(f"{file.path}: {trunk.wrong_input}: change those keys.")
    return {
        prefix + name.removeprefix(own) if name.startswith(own) else name: tensor
        for name, tensor in file.tensors.items()
    }


def _squeezed(shape: torch.Size) -> list[int]:
    return [side for side in shape if side != 1]


def _check_complete(account: Account, prefix: str | None, *, allow_partial: bool, whole: bool) -> None:
    if not account.loaded:
        raise WeightsError(
            f"{account.source}: none of its {len(account.unexpected)} keys is one of this network's "
            f"(it has {shorten(account.unexpected, 3)})."
        )
    if whole and account.missing:
        raise WeightsError(
            f"{account.source} lacks {len(account.missing)} of this network's weights: {shorten(account.missing)}. "
            "Evaluate with the config that the weights were trained with."
        )
    if allow_partial or prefix is None:
        return
    trunk = [name for name in account.missing if name.startswith(prefix) and ".gate." not in name]
    trunk = [name for name in trunk if prefix != "" or not name.startswith(PREDICTORS)]
    gates = [name for name in account.missing if name.startswith(prefix) and ".gate." in name]
    some_gates = any(".gate." in name for name in account.loaded)
    lacking = trunk + (gates if some_gates else [])
    if lacking:
        raise WeightsError(
            f"{account.source} lacks {len(lacking)} weights of the backbone: {shorten(lacking)}. Check MODEL.RESNETS "
            "and MODEL.GATE against the file, or allow it with --allow-partial."
        )


def _settle_fresh_gates(model: nn.Module, file: WeightFile, account: Account, gate_init: str) -> None:
    """Gates without weights are trained, and leave the network's function as it is unless told otherwise."""
    missing = set(account.missing)
    for branch in gated_branches(model):
        name, gate = branch.name, branch.gate
        if f"{branch.gate_name}.fc1.weight" not in missing:
            continue
        account.fresh_gates.append(name)
        if any(isinstance(m, FrozenBatchNorm2d) for m in gate.modules()):
            raise WeightsError(
                f"{file.path} has no weights for the gate of {name}, whose norm would be frozen at its initial "
                "values: set MODEL.GATE.NORM GN (or BN) and, if that block is frozen, MODEL.BACKBONE.FREEZE_AT 0."
            )
        own = next(key for key in branch.block.state_dict() if "gate." not in key)
        plain = f"{name}.{own}" not in missing and not any(".gate." in key for key in file.tensors)
        if gate_init == "identity" or (gate_init == "" and plain and branch.can_keep_function):
            branch.keep_function()
        gate.requires_grad_(True)
