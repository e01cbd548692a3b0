"""Weights that come with se_det: small networks that were trained on data which the repository itself makes."""

from __future__ import annotations

from pathlib import Path

from ..errors import WeightsError, suggestion
from ..packaged import packaged_folder

SHIPPED = "shipped://"


def shipped_weights(source: str) -> Path:
    """The file of `shipped://name`.

    Raises:
        WeightsError: there is none of that name.
    """
    folder = packaged_folder("model_zoo")
    name = source.removeprefix(SHIPPED)
    path = folder / f"{name}.safetensors"
    names = sorted(file.stem for file in folder.glob("*.safetensors"))
    if name not in names:
        raise WeightsError(
            f"MODEL.WEIGHTS {source}: no weights of that name come with se_det, only {', '.join(names) or 'none'}."
            f"{suggestion(name, names)}"
        )
    return path
