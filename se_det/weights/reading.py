"""Reading weight files safely: tensors and plain containers, whatever the file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..errors import WeightsError

# What a checkpoint of ours says besides its tensors.
EXTRA = ("config", "categories", "iteration", "engine", "architecture")
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True)
class WeightFile:
    """What a file holds: `tensors` by name, and what else a checkpoint of ours says of them."""

    path: Path
    tensors: dict[str, torch.Tensor]
    extra: dict[str, Any] = field(default_factory=dict)
    averaged: bool = False


def read_plain(path: str | Path) -> Any:
    """The content of a `torch.save` file, of tensors and plain containers only.

    Raises:
        WeightsError: the file is missing, damaged, or asks for anything else; the sentence names what it asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}: check MODEL.WEIGHTS.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _refused_global(str(error))
        if wanted:
            raise WeightsError(
                f"{path} is refused: it asks for {wanted}, and weight files may hold tensors and plain containers only."
            ) from error
        raise WeightsError(f"{path} is damaged or not a file of PyTorch weights.") from error
    # What a damaged file does to torch.load is not foreseeable: a seek before its start is an OSError, too.
    except Exception as error:
        raise WeightsError(f"{path} is damaged or not a file of PyTorch weights.") from error


def _refused_global(message: str) -> str:
    for marker in ("Unsupported global: GLOBAL ", "Unsupported class ", "Trying to call "):
        if marker in message:
            return message.split(marker, 1)[1].split()[0].rstrip(".,")
    return ""


def read_weights(path: str | Path) -> WeightFile:
    """The weights in a `.pth` or `.safetensors` file: a bare state dict, or one under `model` or `state_dict`.

    Where a checkpoint of ours has averaged weights (`ema`), those are given.

    Raises:
        WeightsError: as `read_plain`; or there are no tensors in it.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"MODEL.WEIGHTS {path} has an unknown ending: use one of {', '.join(SUFFIXES)}.")
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise WeightsError(f"There is no weight file {path}: check MODEL.WEIGHTS.")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            return WeightFile(path, load_file(path), _extra_of(metadata))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged or not a safetensors file: {error}.") from error
    content = read_plain(path)
    extra: dict[str, Any] = {}
    averaged = False
    if isinstance(content, Mapping):
        for key in ("model", "state_dict"):
            if isinstance(content.get(key), Mapping):
                extra = {k: v for k, v in content.items() if k in EXTRA}
                averaged = isinstance(content.get("ema"), Mapping) and bool(content["ema"])
                content = {**content[key], **(content["ema"] if averaged else {})}
                break
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no state dict, but a {type(content).__name__}.")
    tensors = {str(name).removeprefix("module."): t for name, t in content.items() if isinstance(t, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors under their names.")
    return WeightFile(path, tensors, extra, averaged)


def _extra_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What an exported checkpoint of ours says in the header of its safetensors file; nothing of others' files."""
    try:
        said = json.loads(metadata.get("se_det", "{}"))
    except ValueError:
        return {}
    return {k: v for k, v in said.items() if k in EXTRA} if isinstance(said, dict) else {}
