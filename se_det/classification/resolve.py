"""The facts of a pretraining, and the recipe that they make of the one that was asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from fvcore.common.config import CfgNode

from .. import comm
from ..config.resolution import Decision, Resolution
from ..errors import CheckpointError, ConfigError, DataError
from ..training import build
from ..training.checkpoint import Checkpointer, load_checkpoint
from ..training.resolve import SavedRun
from ..training.resume_checks import check_engine, check_resumable
from ..weights import read_weights
from ..weights.reading import WeightFile
from .build import MUTABLE_KEYS, check_recipe
from .data.dataset import ClassificationDataset, read_class_names
from .data.dataset_factory import open_image_dataset
from .defaults import get_pretrain_cfg

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainingFacts:
    """What was found before a run, and decides keys of its recipe.

    Attributes:
        device: this process's.
        test: None evaluates nothing.
        train: None in an evaluation.
        weights: the file that is evaluated.
        saved: the run that is resumed.
    """

    device: torch.device
    test: ClassificationDataset | None
    train: ClassificationDataset | None = None
    weights: WeightFile | None = None
    saved: SavedRun | None = None


def resolve_pretraining(
    asked: CfgNode, *, resume: bool = False, checkpoint: str | None = None
) -> tuple[CfgNode, PretrainingFacts]:
    """The recipe as it is run, checked and frozen, and the facts that decided it.

    Args:
        checkpoint: the one to resume in place of the newest.

    Raises:
        SeDetError: what `asked` names cannot be had, or cannot be trained.
    """
    stage = Resolution(asked)
    device, decisions = build.decide_device(stage.cfg)
    stage.decide(decisions)
    check_recipe(stage.cfg)  # before images are looked for
    train = _open_training_images(stage)
    test = None
    if stage.cfg.DATASETS.TEST:
        test = _open_test_images(stage.cfg, train.class_names)
    else:
        logger.warning("There is no data to evaluate on (--test_data_path, DATASETS.TEST): nothing is evaluated.")
    saved = None
    if resume:
        saved = _read_saved(stage.cfg, checkpoint)
        # What the run started with decided how fast its layers learn.
        weights = str(yaml.safe_load(saved.state["config"])["MODEL"]["WEIGHTS"])
        stage.decide([Decision("MODEL.WEIGHTS", weights, str(saved.path), "what the run started with")])
    stage.decide(build.decide_precision(stage.cfg, device, saved and saved.state["config"], saved and saved.path))
    if saved:
        check_resumable(
            saved.state, stage.cfg, categories(train), saved.path, MUTABLE_KEYS, defaults=get_pretrain_cfg()
        )
    stage.decide(build.decide_seed(stage.cfg, saved and saved.seed, saved and saved.path))
    return stage.finish(check_recipe), PretrainingFacts(device, test, train, saved=saved)


def resolve_classifier_evaluation(asked: CfgNode) -> tuple[CfgNode, PretrainingFacts]:
    """The recipe by which MODEL.WEIGHTS are evaluated, checked and frozen, and the facts that decided it.

    Raises:
        SeDetError: no weights or no images are named, or the weights are not of this network.
    """
    stage = Resolution(asked)
    device, decisions = build.decide_device(stage.cfg)
    stage.decide(decisions)
    stage.decide(build.decide_precision(stage.cfg, device))
    cfg = stage.cfg
    if not cfg.MODEL.WEIGHTS:
        raise ConfigError("No weights were given to evaluate: set MODEL.WEIGHTS <path>, or --resume <checkpoint>.")
    file = read_weights(cfg.MODEL.WEIGHTS)
    names = [str(c["name"]) for c in file.extra["categories"]] if "architecture" in file.extra else None
    test = open_image_dataset(
        cfg.DATASETS.TEST,
        root=cfg.DATASETS.TEST_ROOT,
        classes=names or read_class_names(cfg.DATASETS.CLASSES),
        num_classes=0 if names else cfg.MODEL.NUM_CLASSES,
    )
    source = str(file.path) if names else test.source
    stage.decide([Decision("MODEL.NUM_CLASSES", len(test.class_names), str(source), "its classes")])
    return stage.finish(check_recipe), PretrainingFacts(device, test, weights=file)


def categories(images: ClassificationDataset) -> list[dict[str, Any]]:
    """`[{"id": ..., "name": ...}, ...]` in the order of the classes, as a checkpoint keeps them."""
    return [{"id": number, "name": name} for number, name in enumerate(images.class_names)]


def _open_training_images(stage: Resolution) -> ClassificationDataset:
    cfg = stage.cfg
    classes, number = read_class_names(cfg.DATASETS.CLASSES), cfg.MODEL.NUM_CLASSES
    images = open_image_dataset(cfg.DATASETS.TRAIN, root=cfg.DATASETS.TRAIN_ROOT, classes=classes, num_classes=number)
    if number not in (0, len(images.class_names)):
        raise DataError(f"{images.source} has {len(images.class_names)} classes, and MODEL.NUM_CLASSES is {number}.")
    empty = [name for name, count in zip(images.class_names, images.counts().tolist()) if not count]
    if empty:
        logger.warning("%d classes have no image to train on: %s.", len(empty), ", ".join(empty[:8]))
    stage.decide([Decision("MODEL.NUM_CLASSES", len(images.class_names), str(images.source), "its classes")])
    return images


def _open_test_images(cfg: CfgNode, class_names: list[str]) -> ClassificationDataset:
    return open_image_dataset(
        cfg.DATASETS.TEST, root=cfg.DATASETS.TEST_ROOT, classes=class_names, num_classes=len(class_names)
    )


def _read_saved(cfg: CfgNode, checkpoint: str | None) -> SavedRun:
    """The checkpoint to resume; read by the first process, as other machines may not have its folder."""
    found = None
    if comm.is_main_process():
        path, state = (
            (Path(checkpoint), load_checkpoint(checkpoint)) if checkpoint else Checkpointer(cfg.OUTPUT_DIR).latest()
        )
        check_engine(state, path)
        if "architecture" not in state:
            raise CheckpointError(
                f"{path} is not of a pretraining run, but of a detector's: resume it with the detector."
            )
        found = SavedRun(path, state)
    return comm.broadcast_object(found)
