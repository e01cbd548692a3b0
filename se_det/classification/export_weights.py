"""From a checkpoint of a run to a file of weights alone."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save

from ..errors import ConfigError
from ..files import atomic_write
from ..weights import read_weights


def export_safetensors(checkpoint: str | Path, path: str | Path) -> Path:
    """Write the weights of `checkpoint`, the averaged ones where there are any, as a safetensors file.

    Its header keeps what the checkpoint says of them (config, classes, architecture), so that it starts a detector and
    classifies as the checkpoint does.

    Raises:
        ConfigError: `path` does not end in .safetensors.
        WeightsError: the checkpoint cannot be read.
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConfigError(f"--export {path} must end in .safetensors.")
    file = read_weights(checkpoint)
    tensors = {name: tensor.contiguous() for name, tensor in file.tensors.items()}
    data = save(tensors, metadata={"format": "pt", "se_det": json.dumps(file.extra)})
    atomic_write(path, lambda out: out.write(data))
    return path
