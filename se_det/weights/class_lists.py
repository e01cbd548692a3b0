"""The zoo's lists of classes: `model_zoo/classes/*.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..config.loading import read_yaml


@cache
def read_categories(folder: Path, name: str) -> tuple[dict[str, Any], ...]:
    """`{"id": ..., "name": ...}` of each class of a list, in its order.

    Raises:
        ConfigError: there is no such list.
    """
    listed = read_yaml(folder / "classes" / f"{name}.yaml")
    return tuple({"id": number, "name": str(word)} for number, word in listed.items())
