"""The config that a checkpoint carries, for who has nothing but the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from ..config.loading import load_saved_config
from ..errors import ConfigError
from .identify import identify
from .reading import read_weights
from .source import resolve_weights
from .zoo import SCHEME, DetectorEntry, get_entry

# What a run was made on and wrote to; another machine has its own.
PLACES = ("MODEL.DEVICE", "OUTPUT_DIR")


def config_of_checkpoint(
    source: str | Path, overrides: Sequence[Any] = (), *, defaults: CfgNode | None = None, data: bool = True
) -> CfgNode:
    """The config that a checkpoint was trained with, its MODEL.WEIGHTS the checkpoint itself. That of a detector of the
    zoo is its entry's.

    MODEL.DEVICE and OUTPUT_DIR are defaults again. The other keys are as saved, those of training and of its data
    among them, and count as nobody's choice, as a shipped config's do; `overrides` are the user's.

    Args:
        source: a path or a URL; what MODEL.WEIGHTS may be.
        overrides: `[key, value, ...]`, set last.
        defaults: see `load_config`.
        data: whether the keys of its data (DATASETS) are taken, too.

    Raises:
        WeightsError: the file cannot be had or read.
        ConfigError: it carries no detector's config, or one with keys that this version does not know.
    """
    path, extra = _metadata(source)
    if "architecture" in extra:
        raise ConfigError(
            f"{path} is a classifier's checkpoint and carries no detector's config: give the checkpoint of a detector, "
            "or a detector's config with --config-file and MODEL.WEIGHTS."
        )
    if not extra.get("config"):
        raise ConfigError(
            f"{path} carries no config that would say which network its weights are of: give the config that they were "
            "trained with, --config-file F (in Python, load_config(F))."
        )
    if extra.get("engine") == "detectron2" and defaults is None:
        raise ConfigError(
            f"{path} was trained with --engine detectron2, and its config is Detectron2's: give the config that the "
            "run was started with, --config-file F (in Python, load_config(F))."
        )
    pairs = ["MODEL.WEIGHTS", str(source), *overrides]
    return load_saved_config(
        extra["config"],
        pairs,
        source=f"The config in {path}",
        defaults=defaults,
        leave_out=PLACES if data else (*PLACES, "DATASETS."),
    )


def _metadata(source: str | Path) -> tuple[str | Path, dict[str, Any]]:
    """What a sentence calls the file, and what it, or its entry in the zoo, says of its weights."""
    if str(source).startswith(SCHEME):
        entry = get_entry(str(source))
        if not isinstance(entry, DetectorEntry):
            raise ConfigError(
                f"{source} is a pretrained backbone and carries no detector's config: give the checkpoint of a "
                "detector, or one of the zoo's detectors, such as zoo://faster_rcnn_R_50_FPN_3x."
            )
        return str(source), entry.extra()  # known without the file
    path, entry = resolve_weights(source)
    if isinstance(entry, DetectorEntry):
        return path, {**read_weights(path).extra, **entry.extra()}
    return path, identify(path, entry.family if entry else "").extra
