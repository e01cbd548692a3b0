"""Training on a folder as a labelling tool exported it: what it holds, a validation split, and a recipe."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from ..backbones.catalog import list_models
from ..config.loading import find_config, load_config, merge_overrides, shipped_config
from ..config.resolution import Decision, Resolution
from ..data.coco import read_coco
from ..data.formats import OpenedData, OpenedSplit, open_data
from ..data.splitting import Split, make_split
from ..data.tile_truth import train_tiles
from ..device import select_device
from ..errors import ConfigError, DataError, suggestion
from ..inference.exported import config_of_exported
from ..inference.runtimes import is_exported
from ..weights import config_of_checkpoint
from .own_files import has_own_files
from .recipe import Goal, decide, measure_data, measure_machine
from .recipe.decide import SCRATCH, base_config
from .recipe.facts import measure_in_windows, weights_at_hand
from .recipe.trial import fit_batch

TASKS = ("boxes", "masks", "keypoints")
SPLIT = "split"  # the folder in OUTPUT_DIR of a split that was made
VALIDATION = ("val", "valid", "validation", "dev")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnData:
    """The two COCO files of a training on somebody's own data, each with its folder of images.

    Attributes:
        opened: all that was read.
        made: the split that was made, where there was none.
    """

    train: tuple[Path, Path]
    val: tuple[Path, Path]
    opened: OpenedData
    made: Split | None = None

    def overrides(self) -> list[str]:
        """As `[key, value, ...]`."""
        pairs = {"TRAIN": self.train, "VAL": self.val}
        return [
            word
            for part, (json_path, images) in pairs.items()
            for word in (f"DATASETS.{part}_JSON", str(json_path), f"DATASETS.{part}_IMAGES", str(images))
        ]


def open_own_data(source: str | Path, output: str | Path) -> OwnData:
    """Read a data set of any known format; where it has no validation split, one is made in `output`.

    Raises:
        DataError: its format is not known, it has a fault, or nothing to train on.
    """
    data = open_data(source)
    _log_summary(data)
    train = data.splits.get("train") or next(
        (split for name, split in data.splits.items() if name not in (*VALIDATION, "test")), None
    )
    if train is None:
        raise DataError(
            f"{source} has no split to train on, only {', '.join(data.splits)}: name the folder of one of them "
            "train, or give its annotation file."
        )
    val = validation_split(data)
    if val is not None:
        return OwnData((train.json_path, train.images_folder), (val.json_path, val.images_folder), data)
    split = make_split(train.json_path, train.images_folder, Path(output) / SPLIT)
    logger.info(
        "%s has no validation split, so %d of its %d images are held out (%d are near-duplicates of another, and on "
        "its side): %s.", source, split.val_images, split.val_images + split.train_images, split.grouped, split.val,
    )  # fmt: skip
    if split.warning:
        logger.warning("%s: %s. Give a validation split to measure that.", source, split.warning)
    return OwnData((split.train, train.images_folder), (split.val, train.images_folder), data, split)


def validation_split(data: OpenedData) -> OpenedSplit | None:
    """The split to evaluate on, or None. One called test is left for the end."""
    return next((data.splits[name] for name in VALIDATION if name in data.splits), None)


def recipe_config(
    source: str | Path,
    *,
    output: str | Path,
    overrides: Sequence[Any] = (),
    model: str | None = None,
    task: str | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    device: str | None = None,
    own: OwnData | None = None,
) -> CfgNode:
    """The config of a training on `source`, decided by the facts of data, machine and goal.

    Args:
        source: what `open_data` reads.
        output: OUTPUT_DIR.
        overrides: `[key, value, ...]` of the user's, which the recipe leaves as they are.
        model: a shipped config, or a model's name such as rg_se_resnet50; None lets the machine decide.
        task: one of `TASKS`; None: masks if more than half of the objects have one, keypoints if so many
            have some, else boxes.
        minutes, epochs: how long; at most one of them.
        device: as MODEL.DEVICE; None takes a GPU where there is one.
        own: `source` as `open_own_data` opened it; None opens it.

    Raises:
        SeDetError: data, model or goal cannot be used.
    """
    _check_goal(task, minutes, epochs)
    chosen = select_device(device or "cuda")
    at_hand = functools.cache(weights_at_hand)  # a server is asked once
    name, of_model = _model(model, chosen.type, at_hand)
    own = own or open_own_data(source, output)
    train, val = read_coco(*own.train), read_coco(*own.val)
    cfg = load_config(name, [*of_model, *own.overrides(), "OUTPUT_DIR", str(output), *overrides])
    data = measure_data(train, val)
    if task is None:
        task = "masks" if data.masks > 0.5 else "keypoints" if data.keypoints > 0.5 else "boxes"
    if task == "masks" and not data.masks:
        raise ConfigError(f"--task masks: no object of {source} has a mask. Leave it out, or give --task boxes.")
    if task == "keypoints" and not data.keypoints:
        why = train.keypoint_fault or "No object has a labelled keypoint."
        raise ConfigError(f"--task keypoints: {why} Leave it out, or give --task boxes.")
    machine = measure_machine(chosen, weights=at_hand(str(cfg.MODEL.WEIGHTS)))
    in_parts: list[Decision] = []

    def seconds(tried: CfgNode) -> float:
        found, more = fit_batch(tried)
        in_parts.extend(more)
        return found

    decisions = decide(
        cfg,
        data,
        machine,
        Goal(task=task, minutes=minutes, epochs=epochs),
        seconds=seconds,
        in_windows=lambda cfg: measure_in_windows(data, train, val, train_tiles(cfg)),
    )
    stage = Resolution(cfg)
    stage.decide([*decisions, *in_parts])
    return stage.cfg


def evaluation_config(source: str | Path | None, weights: str, overrides: Sequence[Any] = ()) -> CfgNode:
    """The config by which a checkpoint that carries its own is evaluated.

    Args:
        source: data of any known format: its validation split, or one that was made of it for the checkpoint, else its
            test split, else all of it. None is what the checkpoint was evaluated on.
        weights: the checkpoint.
        overrides: `[key, value, ...]`.

    Raises:
        SeDetError: the checkpoint carries no config, or the data cannot be used.
    """
    exported = is_exported(weights)
    cfg = config_of_exported(weights, overrides) if exported else config_of_checkpoint(weights, overrides)
    if source is None:
        if exported and not has_own_files(cfg, "VAL") and not cfg.DATASETS.TEST:
            raise ConfigError(
                f"{weights} is an exported detector and does not say what data it is for: name the data, or give "
                "--val-json and --val-images."
            )
        return cfg
    data = open_data(source)
    _log_summary(data)
    split = validation_split(data) or data.splits.get("test")
    held_out = Path(cfg.DATASETS.VAL_JSON)
    if split is None and held_out.parent.name == SPLIT and held_out.is_file():
        own = next(iter(data.splits.values()))
        if Path(cfg.DATASETS.VAL_IMAGES).resolve() == own.images_folder.resolve():
            return cfg
    if split is None:
        name, split = next(iter(data.splits.items()))
        logger.warning(
            "%s has no validation split: all of '%s' is evaluated. AP says little where the weights were trained on "
            "it.", source, name,
        )  # fmt: skip
    merge_overrides(cfg, ["DATASETS.VAL_JSON", str(split.json_path), "DATASETS.VAL_IMAGES", str(split.images_folder)])
    return cfg


def _log_summary(data: OpenedData) -> None:
    for line in data.summary().splitlines():
        logger.info("%s", line)


def _check_goal(task: str | None, minutes: float | None, epochs: float | None) -> None:
    if task is not None and task not in TASKS:
        raise ConfigError(f"--task '{task}' is unknown: use one of {', '.join(TASKS)}.")
    if minutes is not None and epochs is not None:
        raise ConfigError("--minutes and --epochs both say how long to train: give one of them.")
    for option, value in (("--minutes", minutes), ("--epochs", epochs)):
        if value is not None and not 0 < value < 1e6:
            raise ConfigError(f"{option} must be above 0, got {value:g}.")


# How the shipped configs' names abbreviate models'.
SHORT = {"resnet": "r", "resnext": "x", "_32x4d": ""}


def _model(model: str | None, device: str, at_hand: Callable[[str], bool]) -> tuple[str, list[str]]:
    """The shipped config of a model, and what else is to be set: a model without a config is a backbone's name."""
    if model is None:
        return str(shipped_config(base_config(device, at_hand))), []
    if model.endswith((".yaml", ".yml")):
        return str(find_config(model)), []
    shipped = model
    for long, short in SHORT.items():
        shipped = shipped.replace(long, short)
    for name in (f"{model}.yaml", f"faster_rcnn_{shipped}_fpn.yaml"):
        try:
            return str(find_config(name)), []
        except ConfigError:
            continue
    if model in list_models():
        return str(shipped_config(SCRATCH)), ["MODEL.BACKBONE.NAME", model, "MODEL.GATE.NAME", "none"]
    raise ConfigError(
        f"--model '{model}' is neither a shipped config nor a known model.{suggestion(model, list_models())} "
        "se_det.list_models() lists the models."
    )
