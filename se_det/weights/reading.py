"""Reading weight files safely: tensors and plain containers, whatever the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..config.paths import expand_path
from ..errors import WeightsError
from .families.conventions import WeightConventions
from .formats.mat import read_mat
from .formats.npz import read_npz
from .formats.numpy_pickle import read_numpy_pickle
from .formats.torch_file import read_plain
from .metadata import validate_metadata

# What a file says of its weights, beside them: checkpoints of ours, converted files, Detectron2's pickles.
EXTRA = (
    "config",
    "categories",
    "pixel_classes",
    "iteration",
    "engine",
    "architecture",
    "facts",
    "family",
    "thresholds",
    "__author__",
)
CONTAINERS = ("model", "state_dict", "blobs")  # under which programs keep the tensors
# Under which they keep averaged ones: se_det, fairseq, ultralytics; timm; torchvision; DINO; callbacks of Lightning.
AVERAGED = ("ema", "state_dict_ema", "model_ema", "ema_model", "ema_state_dict", "averaged_model")
# Names within a state dict that some modules give to their average.
AVERAGED_PREFIXES = ("ema_model.", "model_ema.", "ema.")


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file: `tensors` by name, and its metadata in `extra`. `identify` adds the rest.

    Attributes:
        averaged: a sentence that says which averaged weights were taken; "" if the file has none.
        family: the family that the keys were recognised as; "" before `identify`, when they are still the file's own.
        facts: what the weights need of the network and its input.
        reshaped: names of tensors whose shape was changed.
        unknown_parts: keys of parts of the trunk that no network here has.
        unordered_classes: number of classes of a classifier that was left out because their order is not known.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    extra: dict[str, Any] = field(default_factory=dict)
    averaged: str = ""
    family: str = ""
    facts: WeightConventions = field(default_factory=WeightConventions)
    reshaped: tuple[str, ...] = ()
    unknown_parts: tuple[str, ...] = ()
    unordered_classes: int = 0


def read_weights(path: str | Path) -> WeightFile:
    """The weights in a file: a bare state dict, or one under `model`, `state_dict` or `blobs`.

    The ending says what it is: `.pth`, `.pt`, `.bin`, `.tar` (`torch.save`), `.safetensors`, `.pkl` (Detectron2),
    `.npz` (Caffe's blobs), `.mat` (MatConvNet). Nothing in the file is run. Where a checkpoint has averaged weights,
    those are given, as its own program evaluates them.

    Raises:
        WeightsError: the file is missing, damaged, holds no tensors, or asks for anything but tensors and plain
            containers; the sentence names what it asked for.
    """
    path = Path(expand_path(path, "MODEL.WEIGHTS"))
    if path.suffix not in READERS:
        raise WeightsError(f"MODEL.WEIGHTS {path} has an unknown ending: use one of {', '.join(READERS)}.")
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}: check MODEL.WEIGHTS.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    content = READERS[path.suffix](path)
    extra: dict[str, Any] = {}
    averaged = ""
    if isinstance(content, Mapping):
        raw = next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        averages = {key: found for key in AVERAGED if (found := _tensors_of(content.get(key)))}
        mean = next(iter(averages), None)
        if raw or (mean and not any(isinstance(value, torch.Tensor) for value in content.values())):
            extra = validate_metadata(path, {k: v for k, v in content.items() if k in EXTRA})
            content, averaged = _averaged(content, raw, averages)
    if isinstance(content, Mapping):
        content, inner = _averaged_names(content)
        averaged = averaged or inner
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no state dict, but a {type(content).__name__}.")
    tensors = {}
    for name, value in content.items():
        tensor = _as_tensor(path, name, value)
        if tensor is not None:
            tensors[str(name).removeprefix("module.")] = tensor
    if not tensors:
        raise WeightsError(f"{path} holds no tensors under their names.")
    _check_size(path, tensors)
    return WeightFile(path, tensors, extra, averaged)


def _tensors_of(value: Any) -> Mapping[str, Any]:
    """The state dict that `value` is, or holds under a name of its own; {} without one."""
    if not isinstance(value, Mapping):
        return {}
    if any(isinstance(item, (torch.Tensor, np.ndarray)) and item.ndim for item in value.values()):
        return value
    return next((found for item in value.values() if (found := _tensors_of(item))), {})


def _averaged(
    content: Mapping[str, Any], raw: str | None, averages: Mapping[str, Mapping[str, Any]]
) -> tuple[Mapping[str, Any], str]:
    """The weights out of a checkpoint's containers, and a sentence about which they are."""
    mean = next(iter(averages), None)
    if mean is None:
        others = [key for key, value in content.items() if key != raw and _may_be_average(str(key), value)]
        note = f"The file has {others[0]}, too, which may be averaged weights: {raw} is taken." if others else ""
        return content[raw], note
    if raw and mean == "ema_state_dict" and "steps" in content[mean]:
        # mmengine exchanges the two when it saves, so that the usual place has the averaged ones.
        note = f"{raw} holds averaged weights, as mmengine saves them; the raw ones ({mean}) are left out."
        return content[raw], note
    names = {str(name).removeprefix("module."): value for name, value in averages[mean].items()}
    names = {name: value for name, value in names.items() if name not in ("n_averaged", "num_updates", "decay")}
    if raw is None:
        return names, f"The weights are averaged ones ({mean})."
    plain = {str(name).removeprefix("module."): value for name, value in content[raw].items()}
    more = "".join(f", nor those of {key}" for key in averages if key != mean)
    return {**plain, **names}, f"Its averaged weights ({mean}) are taken, not the raw ones ({raw}){more}."


def _may_be_average(key: str, value: Any) -> bool:
    if "ema" in key.lower() or "averag" in key.lower():
        return bool(_tensors_of(value))
    return isinstance(value, Mapping) and any(_may_be_average(str(inner), item) for inner, item in value.items())


def _averaged_names(tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Where a state dict has an average of itself under a prefix, that average."""
    for prefix in AVERAGED_PREFIXES:
        found = {name: value for name, value in tensors.items() if str(name).startswith(prefix)}
        rest = [name for name in tensors if not str(name).startswith(prefix)]
        if found and len(found) > 1:
            names = {name.removeprefix(prefix).removeprefix("module."): value for name, value in found.items()}
            names = {name: v for name, v in names.items() if name not in ("n_averaged", "num_updates", "decay")}
            others = f", not the {len(rest)} others" if rest else ""
            return names, f"Its averaged weights ({prefix}*) are taken{others}."
    return tensors, ""


def _as_tensor(path: Path, name: object, value: object) -> torch.Tensor | None:
    """`value` as a tensor, None for what is none."""
    if isinstance(value, np.ndarray):
        # Loading copies; what is not written in this machine's order, or not at all writable, is copied here.
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if not isinstance(value, torch.Tensor):
        return None
    if value.is_quantized:
        raise WeightsError(
            f"{path} is of a quantised network: {name} is of {str(value.dtype).removeprefix('torch.')}. Give the "
            "weights it was made from."
        )
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_nested:
        raise WeightsError(f"{path} is refused: {name} is no ordinary tensor, but {value.layout} on {value.device}.")
    return value.detach()


def _check_size(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that repeat a few numbers without end: whoever copies them runs out of memory."""
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(f"{path} is refused: {name} is larger than the numbers it is made of.")
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()}
    # Only archives of NumPy and MATLAB are compressed, and their readers have a limit of their own.
    if path.suffix not in (".npz", ".mat") and sum(storages.values()) > path.stat().st_size:
        raise WeightsError(f"{path} is refused: its tensors are larger than the file.")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file: {error}.") from error
    try:
        stored = json.loads(metadata.get("se_det", "{}"))  # an exported checkpoint of ours
        if "facts" in metadata:  # a converted file
            about = stored if isinstance(stored, dict) else {}
            stored = {**about, "family": metadata.get("family", ""), "facts": json.loads(metadata["facts"])}
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: its metadata is no JSON.") from error
    return (
        {"model": tensors, **{k: v for k, v in stored.items() if k in EXTRA}} if isinstance(stored, dict) else tensors
    )


def _read_parameters(path: Path) -> dict[str, Any]:
    """The parameters of a MatConvNet network: `params` is one struct with a name and a value for each."""
    params = read_mat(path).get("params")
    if not isinstance(params, list) or not all(isinstance(p, dict) and {"name", "value"} <= set(p) for p in params):
        raise WeightsError(
            f"{path} is no MatConvNet network in the DagNN form: it has no struct 'params' of names and values."
        )
    return {str(p["name"]): p["value"] for p in params}


READERS: dict[str, Callable[[Path], Any]] = {
    ".pth": read_plain,
    ".pt": read_plain,
    ".bin": read_plain,
    ".tar": read_plain,
    ".safetensors": _read_safetensors,
    ".pkl": read_numpy_pickle,
    ".npz": read_npz,
    ".mat": _read_parameters,
}
