"""The facts of a run of the builtin engine, and the config that they make of the one that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from .. import comm
from ..config.loading import get_key
from ..config.resolution import Resolution
from ..data.coco import CocoDataset, compare_categories
from ..data.loader import check_labels
from ..detection.build import check_model
from ..detection.registry import facts_of, model_facts
from ..errors import ConfigError
from ..inference.exported import ExportedDetector, check_exported_keys, input_decisions, open_exported
from ..inference.runtimes import is_exported
from ..weights import open_configured_weights, saved_decisions
from ..weights.reading import WeightFile
from . import build, datasets
from .checkpoint import Checkpointer
from .config_checks import check_training
from .resume_checks import check_engine, check_resumable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedRun:
    """The checkpoint of a run that is resumed, and where it lies."""

    path: Path
    state: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.state["rng"]["seed"]


@dataclass(frozen=True)
class RunFacts:
    """What was found before a run, and decides keys of its config.

    Attributes:
        device: this process's.
        weights: the file of MODEL.WEIGHTS; None where none is named, or a run is resumed.
        saved: the run that is resumed.
        exported: what runs MODEL.WEIGHTS where that is an exported detector.
    """

    device: torch.device
    test: dict[str, CocoDataset]
    train: list[CocoDataset] = field(default_factory=list)
    weights: WeightFile | None = None
    saved: SavedRun | None = None
    exported: ExportedDetector | None = None


def resolve_training(asked: CfgNode, *, resume: bool = False) -> tuple[CfgNode, RunFacts]:
    """The config of a training as it is run, checked and frozen, and the facts that decided it.

    Raises:
        SeDetError: what `asked` names cannot be had, or cannot be trained; the sentence names key, value and remedy.
    """
    stage = Resolution(asked)
    device, decisions = build.decide_device(stage.cfg)
    stage.decide(decisions)
    # Before files are read: most mistakes are in the keys.
    check_model(stage.cfg)
    check_training(stage.cfg, comm.get_world_size())
    weights = None
    if not resume:
        weights, decisions = open_configured_weights(stage.cfg)
        stage.decide(decisions)
    train, test = datasets.train_datasets(stage.cfg), datasets.test_datasets(stage.cfg)
    datasets.check_categories(train, test)
    stage.decide(datasets.decide_num_classes(stage.cfg, train[0]))
    stage.decide(datasets.decide_heads(stage.cfg, train[0]))
    stage.decide(datasets.decide_pixel_classes(stage.cfg, [*train, *test.values()]))
    stage.decide(datasets.decide_evaluators(stage.cfg, test))
    saved = _read_saved(stage) if resume else None
    stage.decide(build.decide_precision(stage.cfg, device, saved and saved.state["config"], saved and saved.path))
    stage.decide(build.decide_seed(stage.cfg, saved and saved.seed, saved and saved.path))
    cfg = stage.finish(check_model)
    if saved:
        check_resumable(saved.state, cfg, datasets.categories(train[0], keypoints=cfg.MODEL.KEYPOINT_ON), saved.path)
    if not test:
        logger.warning("There is no data to evaluate on (DATASETS.VAL_JSON, DATASETS.TEST): nothing is evaluated.")
    datasets.warn_no_annotations(cfg, test)
    return cfg, RunFacts(device, test, train, weights, saved)


def resolve_evaluation(asked: CfgNode) -> tuple[CfgNode, RunFacts]:
    """The config by which MODEL.WEIGHTS are evaluated, checked and frozen, and the facts that decided it.

    Raises:
        SeDetError: no weights or no test data are named, or they do not go together.
    """
    stage = Resolution(asked)
    device, decisions = build.decide_device(stage.cfg)
    stage.decide(decisions)
    if not stage.cfg.MODEL.WEIGHTS:
        raise ConfigError("MODEL.WEIGHTS is empty: no weights were given to evaluate. Set MODEL.WEIGHTS <path>.")
    test = datasets.test_datasets(stage.cfg)
    if not test:
        raise ConfigError(
            "There is no data to evaluate on: give --val-json and --val-images (DATASETS.VAL_JSON and "
            "DATASETS.VAL_IMAGES), or name a data set in DATASETS.TEST."
        )
    first, *others = test.values()
    for other in others:
        compare_categories(first, other)
    if is_exported(stage.cfg.MODEL.WEIGHTS):
        return _resolve_exported(stage, device, test)
    class_keys = model_facts(stage.cfg).class_keys
    weights, decisions = open_configured_weights(stage.cfg, trained=True, class_keys=class_keys)
    stage.decide(decisions)
    stage.decide(datasets.decide_num_classes(stage.cfg, first))
    stage.decide(datasets.decide_heads(stage.cfg, first))
    stage.decide(datasets.decide_pixel_classes(stage.cfg, list(test.values())))
    stage.decide(datasets.decide_evaluators(stage.cfg, test))
    return stage.finish(check_model), RunFacts(device, test, weights=weights)


def _resolve_exported(
    stage: Resolution, device: torch.device, test: dict[str, CocoDataset]
) -> tuple[CfgNode, RunFacts]:
    """The same of an exported detector, which is as it is: images come as it takes them.

    Raises:
        ConfigError: keys ask for what only a checkpoint can do, or its classes are others than the data's.
    """
    path = stage.cfg.MODEL.WEIGHTS
    check_exported_keys(stage.cfg)
    for key in ("TEST.AUG.ENABLED", "TEST.EVAL_LOSS"):
        if get_key(stage.cfg, key):
            raise ConfigError(f"{key} needs a network of PyTorch, and {path} is an exported one: set {key}=False.")
    model = open_exported(path, device.type)
    stage.decide(input_decisions(stage.cfg, model.metadata))
    datasets.decide_pixel_classes(stage.cfg, list(test.values()))  # refuses data of another kind
    check_exported_classes(f"{path} was exported with", model.metadata, next(iter(test.values())))
    stage.decide(datasets.decide_evaluators(stage.cfg, test))
    return stage.finish(), RunFacts(device, test, exported=model)


def check_exported_classes(subject: str, metadata: Mapping[str, Any], dataset: CocoDataset) -> None:
    """Refuse data that an exported network cannot be evaluated on.

    Args:
        subject: what a sentence begins with, such as "The network has".
        metadata: of an exported detector.

    Raises:
        ConfigError: its classes, classes of pixels or keypoints are others than the data's.
        DataError: the data has no classes of pixels, or no keypoints.
    """
    facts, found = facts_of(metadata["architecture"]), []
    if facts.class_keys:
        found.append(("classes", metadata["classes"], dataset.category_names))
    if "pixel_classes" in metadata:
        check_labels([dataset])
        found.append(("classes of pixels", metadata["pixel_classes"], dataset.pixel_labels.names))
    for kind, classes, given in found:
        known, given = [str(one["name"]) for one in classes], list(map(str, given))
        if known != given:
            raise ConfigError(
                f"{subject} the {kind} {', '.join(known[:10])} ({len(known)}), and the data has "
                f"{', '.join(given[:10])} ({len(given)}), in {dataset.json_path}: evaluate on data with those that it "
                "was trained on, in their order."
            )
    if "keypoints" in metadata:
        # Of a checkpoint that carried no names it has numbers.
        count, declared = len(metadata["keypoints"]["names"]), len(dataset.check_keypoints())
        if count != declared:
            raise ConfigError(
                f"{subject} {count} keypoints, and {dataset.json_path} declares {declared}: evaluate on data with "
                "those that it was trained on."
            )


def _read_saved(stage: Resolution) -> SavedRun:
    """The checkpoint to resume; read by the first process, as other machines may not have its folder."""
    found = None
    if comm.is_main_process():
        path, state = Checkpointer(stage.cfg.OUTPUT_DIR).latest()
        check_engine(state, path)
        found = SavedRun(path, state)
    saved = comm.broadcast_object(found)
    stage.decide(saved_decisions(stage.cfg, saved.state["config"], str(saved.path)))
    return saved
