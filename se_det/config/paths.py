"""Paths as people write them: `~` and `$HOME` stand for folders."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from ..errors import ConfigError

# The keys whose values are paths, of detectors and of pretraining.
PATH_KEYS = (
    "OUTPUT_DIR",
    "MODEL.WEIGHTS",
    "DATASETS.TRAIN_JSON",
    "DATASETS.TRAIN_PANOPTIC",
    "DATASETS.TRAIN_PANOPTIC_JSON",
    "DATASETS.TRAIN_SEM_SEG",
    "DATASETS.VAL_PANOPTIC",
    "DATASETS.VAL_PANOPTIC_JSON",
    "DATASETS.VAL_SEM_SEG",
    "DATASETS.TRAIN_IMAGES",
    "DATASETS.VAL_JSON",
    "DATASETS.VAL_IMAGES",
    "DATASETS.TRAIN",
    "DATASETS.TEST",
    "DATASETS.TRAIN_ROOT",
    "DATASETS.TEST_ROOT",
    "DATASETS.CLASSES",
)
VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def expand_path(path: str | Path, what: str = "The path") -> str:
    """`path` with `~`, `~name`, `$NAME` and `${NAME}` replaced.

    Args:
        what: what a sentence calls it, such as the key.

    Raises:
        ConfigError: there is no such variable or user.
    """
    text = os.fspath(path)
    if text[:1] != "~" and "$" not in text:
        return text
    expanded = os.path.expanduser(os.path.expandvars(text))
    missing = VARIABLE.search(expanded)
    if missing and not os.path.lexists(expanded):
        raise ConfigError(
            f"{what} {text} names the environment variable {missing[0]}, which is not set: set it, or write the path "
            "out."
        )
    if text[0] == "~" and expanded[0] == "~" and not os.path.lexists(expanded):
        raise ConfigError(f"{what} {text} names the home folder of a user that there is not: write the path out.")
    return expanded


def expand_paths(cfg: CfgNode) -> None:
    """Expand the paths in `cfg`, in place.

    Raises:
        ConfigError: naming the key.
    """
    for key in PATH_KEYS:
        *parents, name = key.split(".")
        node: Any = cfg
        for part in parents:
            node = node.get(part, {})
        value = node.get(name)
        if isinstance(value, str) and value:
            expanded = expand_path(value, key)
            if expanded != value:
                node[name] = expanded
