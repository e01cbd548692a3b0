"""`--engine detectron2`: Detectron2's trainer, loaders and evaluators on se_det's configs, data and weights."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.utils import comm as detectron2_comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from fvcore.common.config import CfgNode
from torch import nn

from .. import __version__, comm
from ..config.resolution import Decision, Resolution, dump_config
from ..detection.registry import model_facts
from ..errors import CheckpointError, ConfigError, DataError, SeDetError, TrainingError
from ..files import check_writable, write_text
from ..training import build
from ..training.checkpoint import Checkpointer
from ..training.config_checks import check_training
from ..training.datasets import warn_no_annotations
from ..training.output_folder import OutputFolder
from ..training.preemption import stop_on_signals
from ..training.resume_checks import check_resumable
from ..training.run_log import run_log
from ..training.schedule import SCHEDULES
from ..weights import load_weights, open_configured_weights, resize_gates, saved_decisions
from .detectron2 import add_se_det_config, follow_image_sizes
from .detectron2_checks import check_keys
from .detectron2_data import open_datasets
from .detectron2_fcos import FCOS as _FCOS  # noqa: F401  (registers it)
from .detectron2_results import Metrics, check_evaluation, write_results
from .detectron2_trainer import Trainer
from .detectron2_version import check_detectron2

ENGINE = "detectron2"

logger = logging.getLogger(__name__)


def default_config() -> CfgNode:
    """Every key of Detectron2's and, where it is installed with it, of its PointRend project, and ours."""
    cfg = get_cfg()
    with suppress(ImportError):
        from detectron2.projects.point_rend import add_pointrend_config

        add_pointrend_config(cfg)
    add_se_det_config(cfg)
    return cfg


def run_training(
    cfg: CfgNode, *, resume: bool = False, overwrite: bool = False, allow_partial: bool = False
) -> Metrics:
    """Train with Detectron2 as `cfg` says and evaluate what came of it; as the builtin engine's `run_training`.

    Raises:
        SeDetError: a sentence that says what was wrong and what to do.
    """
    stage = Resolution(cfg)
    folder = OutputFolder(stage.cfg.OUTPUT_DIR)
    with run_log() as log, stop_on_signals() as stop, folder, _as_se_det_errors():
        _decide_device(stage)
        check_keys(stage.cfg)
        check_training(stage.cfg, comm.get_world_size())
        folder.check(resume=resume, overwrite=overwrite)
        weights = None
        if not resume:
            weights, decisions = open_configured_weights(stage.cfg)
            stage.decide(decisions)
        categories, test_datasets, decisions = open_datasets(stage.cfg, training=True)
        stage.decide(decisions)
        path, saved = _saved_run(stage) if resume else (None, None)
        stage.decide(build.decide_seed(stage.cfg, saved["seed"] if saved else None, path))
        stage.decide(_scale_learning_rate(stage.cfg))
        cfg = stage.finish(check_keys, lambda cfg: check_evaluation(cfg, test_datasets))
        if cfg.SOLVER.LR_SCHEDULER_NAME in SCHEDULES:
            build.learning_rate(cfg)  # warns of a run that is too short for it
        warn_no_annotations(cfg, test_datasets)
        if saved:
            check_resumable(saved, cfg, categories, path)
        torch.manual_seed(cfg.SEED)
        model = follow_image_sizes(build_model(cfg))
        if saved:
            resize_gates(model, saved["model"])
        elif weights is not None:
            load_weights(
                model,
                weights,
                allow_partial=allow_partial,
                gate_init=cfg.MODEL.GATE.INIT,
                class_names=[c["name"] for c in categories] or None,
            )
        folder.acquire()
        if comm.is_main_process():
            log.write_to(cfg.OUTPUT_DIR)
            write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", dump_config(cfg))
        _log_to(cfg.OUTPUT_DIR)
        build.set_backend_flags(cfg)
        seed_all_rng(cfg.SEED + comm.get_rank())
        trainer = Trainer(cfg, model, stop=stop, run={"engine": ENGINE, "config": cfg.dump(), "seed": cfg.SEED,
                                                      "categories": categories})  # fmt: skip
        if saved:
            del saved
            trainer.resume_from(path)
        with stop.deferred():
            trainer.train()
        results = getattr(trainer, "_last_eval_results", None) or {}
        if cfg.TEST.AUG.ENABLED:
            results = {**results, **evaluate_with_augmentation(cfg, model)}
        return write_results(cfg, results, test_datasets)


def run_evaluation(cfg: CfgNode) -> Metrics:
    """Evaluate MODEL.WEIGHTS on the test data with Detectron2, and with TEST.AUG under test-time augmentation, too.

    Raises:
        SeDetError: no weights were given, there is nothing to evaluate on, or the weights are not of this network.
    """
    stage = Resolution(cfg)
    with run_log(), stop_on_signals("before its evaluation was done."), _as_se_det_errors():
        _decide_device(stage)
        check_keys(stage.cfg)
        build.set_backend_flags(stage.cfg)
        if not stage.cfg.MODEL.WEIGHTS:
            raise ConfigError("MODEL.WEIGHTS is empty: no weights were given to evaluate. Set MODEL.WEIGHTS <path>.")
        class_keys = model_facts(stage.cfg).class_keys
        weights, decisions = open_configured_weights(stage.cfg, trained=True, class_keys=class_keys)
        stage.decide(decisions)
        categories, test_datasets, decisions = open_datasets(stage.cfg, training=False)
        stage.decide(decisions)
        cfg = stage.finish(check_keys)
        if not cfg.DATASETS.TEST:
            raise ConfigError(
                "There is no data to evaluate on: give --val-json and --val-images (DATASETS.VAL_JSON and "
                "DATASETS.VAL_IMAGES), or name a data set in DATASETS.TEST."
            )
        model = follow_image_sizes(build_model(cfg))
        load_weights(model, weights, strict=True, class_names=[c["name"] for c in categories] or None)
        if comm.is_main_process():
            check_writable(cfg.OUTPUT_DIR)
        _log_to(None)
        results = dict(Trainer.test(cfg, model))
        if cfg.TEST.AUG.ENABLED:
            results.update(evaluate_with_augmentation(cfg, model))
        return write_results(cfg, results, test_datasets)


def evaluate_with_augmentation(cfg: CfgNode, model: nn.Module) -> Metrics:
    """Metrics under TEST.AUG, by task with `_TTA` after its name."""
    if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
        raise ConfigError(
            f"TEST.AUG.ENABLED is True and MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}: Detectron2 augments "
            "images at test time for GeneralizedRCNN only. Set TEST.AUG.ENABLED False."
        )
    evaluators = [Trainer.build_evaluator(cfg, name, folder="inference_TTA") for name in cfg.DATASETS.TEST]
    results = Trainer.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
    return {f"{name}_TTA": values for name, values in results.items()}


def _decide_device(stage: Resolution) -> None:
    logger.info(
        "Engine: detectron2 (Detectron2 %s, se_det %s, PyTorch %s), %d process(es).",
        check_detectron2(), __version__, torch.__version__, comm.get_world_size(),
    )  # fmt: skip
    device, decisions = build.decide_device(stage.cfg)
    stage.decide(decisions)
    if comm.get_world_size() > 1:
        if device.type == "cpu":
            raise ConfigError(
                f"Detectron2's trainer works on GPUs when there are several processes, and these "
                f"{comm.get_world_size()} "
                "are on the CPU: start one process, or use the builtin engine."
            )
        detectron2_comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))


def _log_to(folder: str | None) -> None:
    """Let Detectron2's own lines go to the terminal, and to `log.txt` in the folder."""
    for name in ("fvcore", "detectron2"):
        setup_logger(folder, distributed_rank=comm.get_rank(), name=name, color=sys.stdout.isatty())


def _scale_learning_rate(cfg: CfgNode) -> list[Decision]:
    """BASE_LR, and BASE_LR_END with it, scaled to IMS_PER_BATCH: as Detectron2 uses them."""
    solver = cfg.SOLVER
    scaled = build.base_learning_rate(cfg)
    values = {
        "SOLVER.BASE_LR_END": solver.BASE_LR_END * (scaled / solver.BASE_LR),
        "SOLVER.BASE_LR": scaled,
        "SOLVER.REFERENCE_BATCH": 0,
    }
    reason = f"for {solver.IMS_PER_BATCH} images per step"
    return [Decision(key, value, "Detectron2's engine", reason) for key, value in values.items()]


def _saved_run(stage: Resolution) -> tuple[Path, dict[str, Any]]:
    path, saved = Checkpointer(stage.cfg.OUTPUT_DIR).latest()
    if saved.get("engine") == ENGINE and {"model", "trainer", "config"} <= saved.keys():
        stage.decide(saved_decisions(stage.cfg, saved["config"], str(path)))
        return path, saved
    writer = "the builtin engine" if saved.get("engine") else "another program"
    raise CheckpointError(
        f"{path} was written by {writer}, and Detectron2's trainer would start from its weights as if no step had been "
        f"made: start a new run in another OUTPUT_DIR with MODEL.WEIGHTS {path}, or resume with what wrote it."
    )


@contextmanager
def _as_se_det_errors() -> Iterator[None]:
    """What Detectron2 ends with becomes one of our errors; its traceback goes to the log."""
    try:
        yield
    except (SeDetError, KeyboardInterrupt):
        raise
    except FloatingPointError as error:
        raise TrainingError(f"{error}. Lower SOLVER.BASE_LR, or set SOLVER.CLIP_GRADIENTS.ENABLED True.") from error
    except SizeMismatchError as error:
        raise DataError(f"An image has another size than the annotation file declares. {error}") from error
    except Exception as error:
        logger.exception("Detectron2 failed.")
        told = str(error).strip().splitlines()
        raise TrainingError(
            f"Detectron2 ended with {type(error).__name__}{f': {told[0]}' if told else ''}. The log has its traceback."
        ) from error
