"""Whether a checkpoint can be resumed: it is this engine's, and the run would compute what it would have."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from ..config import get_cfg
from ..config.loading import flatten
from ..config.resolution import plain
from ..errors import CheckpointError
from ..weights.metadata import is_categories, is_config
from .checkpoint import ENGINE

# Keys that may differ: how long, how often, where and by what means, but not what is computed.
MUTABLE_KEYS = frozenset(
    {
        "CUDNN_BENCHMARK",
        "DATALOADER.NUM_WORKERS",
        "DATALOADER.SKIP_BAD_IMAGES",
        # The same data may lie elsewhere: its categories and its number of images are compared.
        "DATASETS.ABSOLUTE_FILE_NAMES",
        "DATASETS.TRAIN_IMAGES",
        "DATASETS.TRAIN_JSON",
        "DATASETS.TRAIN_PANOPTIC",
        "DATASETS.TRAIN_PANOPTIC_JSON",
        "DATASETS.TRAIN_SEM_SEG",
        "DATASETS.VAL_IMAGES",
        "DATASETS.VAL_JSON",
        "DATASETS.VAL_PANOPTIC",
        "DATASETS.VAL_PANOPTIC_JSON",
        "DATASETS.VAL_SEM_SEG",
        "MODEL.CHECKPOINT_ACTIVATIONS",
        "MODEL.DEVICE",
        "MODEL.WEIGHTS",  # only a start needs them
        "OUTPUT_DIR",
        "SOLVER.CHECKPOINT_PERIOD",
        "SOLVER.MAX_ITER",
        "TEST.AUG.ENABLED",  # an evaluation more
        "TEST.COMPILE",
        "TEST.EARLY_STOP",
        "TEST.EVAL_PERIOD",
        "TEST.IMS_PER_BATCH",
        "VERSION",
        "WRITERS",
    }
)


def check_engine(state: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Refuse to resume what another program's trainer wrote, or what is damaged.

    Raises:
        CheckpointError: naming the file and what to do instead.
    """
    if state.get("engine") == ENGINE and {"model", "optimizer", "iteration"} <= state.keys():
        return _check_whole(state, path)
    if state.get("engine") == ENGINE:
        raise CheckpointError(f"{path} holds weights and no state of a run: start from it with MODEL.WEIGHTS {path}.")
    other = "Detectron2's trainer" if "trainer" in state or "__author__" in state else "another program"
    raise CheckpointError(
        f"{path} was written by {other}, whose state the builtin engine cannot continue: start a new run from its "
        f"weights with MODEL.WEIGHTS {path}."
    )


def _check_whole(state: Mapping[str, Any], path: Any) -> None:
    if not is_config(state.get("config")) or not is_categories(state.get("categories")):
        raise CheckpointError(f"{path} is damaged: it does not say with what config and categories it was trained.")


def changed_keys(
    saved: str, cfg: CfgNode, mutable_keys: Collection[str] = MUTABLE_KEYS, defaults: CfgNode | None = None
) -> list[str]:
    """The keys, besides those that `mutable_keys`, in which `cfg` differs from the `saved` YAML, with both values.

    Args:
        defaults: the values of keys that `saved` is too old to have; None: those of `get_cfg`.
    """
    before = dict(flatten(yaml.safe_load(saved)))
    now = dict(flatten(yaml.safe_load(cfg.dump())))
    # A key that is newer than the checkpoint was as it is by default.
    before = {key: value for key, value in flatten(defaults or get_cfg()) if key in now} | before
    changed = []
    for key in sorted(before.keys() | now.keys()):
        if key in mutable_keys or (key == "SEED" and now.get(key, -1) < 0):  # a negative one asks for no certain seed
            continue
        if plain(before.get(key)) != plain(now.get(key)):
            changed.append(f"{key} (was {before.get(key)!r}, now {now.get(key)!r})")
    return changed


def check_resumable(
    state: Mapping[str, Any],
    cfg: CfgNode,
    categories: Sequence[Mapping[str, Any]],
    path: Any,
    mutable_keys: Collection[str] = MUTABLE_KEYS,
    defaults: CfgNode | None = None,
) -> None:
    """Refuse to resume `state` with a config or data that would compute something else; the arguments are those of
    `changed_keys`.

    Raises:
        CheckpointError: naming the keys, or the categories.
    """
    _check_whole(state, path)
    changed = changed_keys(state["config"], cfg, mutable_keys, defaults)
    if changed:
        raise CheckpointError(
            f"{path} cannot be resumed with another configuration: {'; '.join(changed)}. Give the values it was "
            f"started with, or start a new run with MODEL.WEIGHTS {path} in another OUTPUT_DIR."
        )
    if list(map(dict, state["categories"])) != list(map(dict, categories)):
        raise CheckpointError(
            f"{path} was trained on other categories than the training data has now: "
            f"{_first_few(state['categories'])} then, {_first_few(categories)} now. Resume with the data it was "
            f"started with."
        )


def _first_few(categories: Sequence[Mapping[str, Any]]) -> str:
    names = [f"{c['id']} {c['name']}" for c in categories[:5]]
    return f"{len(categories)} ({', '.join(names)}{', ...' if len(categories) > 5 else ''})"
