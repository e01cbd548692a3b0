"""`--engine detectron2`: Detectron2's trainer, loaders and evaluators on se_det's configs, data and weights."""

from __future__ import annotations

import logging
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    SemSegEvaluator,
)
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, GeneralizedRCNNWithTTA, build_model
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm as detectron2_comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from fvcore.common.config import CfgNode
from torch import nn

from .. import __version__, comm
from ..config.loading import get_key
from ..config.resolution import Decision, Resolution, dump_config
from ..detection.bottom_up import gate_name
from ..detection.registry import model_facts
from ..errors import CheckpointError, ConfigError, DataError, SeDetError, TrainingError, suggestion
from ..files import check_writable, write_text
from ..training import build
from ..training.checkpoint import Checkpointer, load_checkpoint
from ..training.config_checks import check_training
from ..training.datasets import warn_no_annotations
from ..training.output_folder import OutputFolder
from ..training.preemption import StopRequest, stop_on_signals
from ..training.resume_checks import check_resumable
from ..training.run_log import run_log
from ..training.schedule import SCHEDULES
from ..weights import load_weights, open_configured_weights, resize_gates, saved_decisions
from .detectron2 import add_se_det_config, follow_image_sizes, register_backbone
from .detectron2_data import open_datasets
from .detectron2_fcos import FCOS as _FCOS  # noqa: F401  (registers it)
from .detectron2_results import Metrics, best_metric, check_evaluation, write_results
from .detectron2_version import check_detectron2

ENGINE = "detectron2"
# Our own keys that Detectron2 has no part for: key, the one value that works there, what to do instead.
BUILTIN_ONLY = (
    ("DATALOADER.SKIP_BAD_IMAGES", 0, "its loader ends at the first image that cannot be read"),
    ("INPUT.RESIZE", "pil", "its loader resizes with PIL"),
    ("MODEL.ROI_HEADS.NMS_TYPE", "hard", "its detectors drop all but the best box"),
    ("MODEL.RESNETS.STOCHASTIC_DEPTH", 0.0, "its ResNets have no stochastic depth"),
    ("MODEL.CHECKPOINT_ACTIVATIONS", False, "its trainer keeps what each block computed"),
    ("SOLVER.BACKBONE_LR_FACTOR", 1.0, "its optimizer has one rate for all layers"),
    ("SOLVER.LAYER_DECAY", 1.0, "its optimizer has one rate for all layers"),
    ("SOLVER.FP16_COMPRESSION", False, "its processes exchange gradients as they are"),
    ("INPUT.AUGMENTATIONS", [], "its loader resizes, flips and crops as Detectron2's keys say"),
    ("DATASETS.TRAIN_SEM_SEG", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.TRAIN_PANOPTIC_JSON", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.TRAIN_PANOPTIC", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.VAL_SEM_SEG", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.VAL_PANOPTIC_JSON", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.VAL_PANOPTIC", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.SEM_SEG_CLASSES", [], "its sets of pixels are those of its own catalog"),
    ("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 1.0, "its default loader crops anywhere"),
    ("INPUT.TILE.SIZE", 0, "its loader takes whole images"),
    ("TEST.TILE.SIZE", 0, "its evaluation takes whole images"),
    ("TEST.EVALUATORS", ["coco"], "it evaluates with Detectron2's evaluators"),
    ("WRITERS", ["json", "tensorboard"], "its trainer writes both"),
    ("SOLVER.ACCUMULATE", 1, "its trainer computes a step in one part"),
    ("SOLVER.EMA.DECAY", 0.0, "its trainer keeps no averaged weights"),
    ("TEST.PRECISION", "float32", "its evaluation computes in float32"),
    ("TEST.COMPILE", False, "its evaluation is not compiled"),
    ("MODEL.ANCHOR_GENERATOR.ROUNDED", False, "its anchors are not rounded"),
    ("MODEL.RETINANET.CLIP_BEFORE_NMS", False, "its boxes are cut off after NMS"),
    ("MODEL.FCOS.CLIP_BEFORE_NMS", False, "its boxes are cut off after NMS"),
    ("MODEL.FCOS.OFFSET", 0.5, "its points are in the middle of their cells"),
    ("MODEL.KERNELS", "pytorch", "its networks compute with PyTorch's operators"),
    ("TEST.EVAL_LOSS", False, "its evaluation computes no losses"),
    ("TEST.EARLY_STOP", 0, "its trainer always goes to SOLVER.MAX_ITER"),
)

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
        _check(stage.cfg)
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
        cfg = stage.finish(_check, lambda cfg: check_evaluation(cfg, test_datasets))
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
        _check(stage.cfg)
        build.set_backend_flags(stage.cfg)
        if not stage.cfg.MODEL.WEIGHTS:
            raise ConfigError("MODEL.WEIGHTS is empty: no weights were given to evaluate. Set MODEL.WEIGHTS <path>.")
        class_keys = model_facts(stage.cfg).class_keys
        weights, decisions = open_configured_weights(stage.cfg, trained=True, class_keys=class_keys)
        stage.decide(decisions)
        categories, test_datasets, decisions = open_datasets(stage.cfg, training=False)
        stage.decide(decisions)
        cfg = stage.finish(_check)
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


class Trainer(DefaultTrainer):
    """Detectron2's trainer with our weights, checkpoints and keys.

    Args:
        model: with its initial weights.
        stop: asked after every step whether to save and leave.
        run: what a checkpoint says of its run besides the trainer's state.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, *, stop: StopRequest, run: dict[str, Any]) -> None:
        self.build_model = lambda cfg: model  # the base class would build one without weights
        self.stop = stop
        self._run = run
        super().__init__(cfg)
        if cfg.SOLVER.AMP.ENABLED:
            self._trainer.precision = getattr(torch, cfg.SOLVER.AMP.DTYPE)

    def resume_from(self, path: Path) -> None:
        """Take over the state of a checkpoint of this engine's."""
        self.checkpointer.load(str(path))
        self.start_iter = self.iter + 1

    def train(self) -> None:
        try:
            super().train()
        except _StopTraining:
            raise self.stop.error(
                f"after {self.iter + 1} of {self.max_iter} steps. All of it is saved: --resume goes on."
            ) from None

    def build_hooks(self) -> list[hooks.HookBase]:
        cfg = self.cfg
        self.checkpointer = SafeCheckpointer(self.model, cfg.OUTPUT_DIR, run=self._run, trainer=weakref.proxy(self))
        result = super().build_hooks()
        # After the learning rate's, whose state is saved; before an evaluation.
        result.insert(1 + next(i for i, hook in enumerate(result) if isinstance(hook, hooks.LRScheduler)), _StopHook())
        if cfg.TEST.EVAL_PERIOD and cfg.DATASETS.TEST and comm.is_main_process():
            best = hooks.BestCheckpointer(
                cfg.TEST.EVAL_PERIOD, self.checkpointer, best_metric(cfg), file_prefix="model_best"
            )
            result.insert(-1, best)  # after the evaluation, before the writers
        return result

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        solver, clip = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
        whole = clip.ENABLED and clip.CLIP_TYPE == "full_model"  # which Detectron2 leaves to each project
        if solver.OPTIMIZER == "SGD" and not whole:
            return super().build_optimizer(cfg, model)
        groups = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay=solver.WEIGHT_DECAY,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        if solver.OPTIMIZER == "SGD":
            kind = partial(torch.optim.SGD, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)
        else:
            kind = torch.optim.AdamW if whole else maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        optimizer = kind(groups, lr=solver.BASE_LR)
        if whole:
            limit = build.gradient_clip(cfg, model)
            optimizer.register_step_pre_hook(lambda *_: limit())
        return optimizer

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return build_detection_test_loader(cfg, dataset_name, batch_size=cfg.TEST.IMS_PER_BATCH)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, folder: str = "inference") -> Any:
        output = os.path.join(cfg.OUTPUT_DIR, folder, *([dataset_name] if len(cfg.DATASETS.TEST) > 1 else []))
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
        evaluators = []
        if kind in ("sem_seg", "coco_panoptic_seg"):
            evaluators.append(SemSegEvaluator(dataset_name, output_dir=output))
        if kind in ("coco", "coco_panoptic_seg"):
            limit = cfg.TEST.MAX_DETS_PER_IMAGE
            evaluators.append(
                COCOEvaluator(dataset_name, output_dir=output, max_dets_per_image=None if limit == 100 else limit)
            )
        if kind == "coco_panoptic_seg":
            evaluators.append(COCOPanopticEvaluator(dataset_name, output))
        if kind == "lvis":
            evaluators.append(LVISEvaluator(dataset_name, output_dir=output))
        if not evaluators:
            raise ConfigError(
                f"DATASETS.TEST names '{dataset_name}', whose evaluator_type is {kind!r}: this engine evaluates coco, "
                "lvis, sem_seg and coco_panoptic_seg. Evaluate it in a script of your own with Detectron2's evaluator."
            )
        return DatasetEvaluators(evaluators)


class _StopTraining(BaseException):
    """Ends Detectron2's loop, which logs the traceback of every `Exception`."""


class _StopHook(hooks.HookBase):
    """Saves and leaves when the run is asked to, as the builtin engine does."""

    def after_step(self) -> None:
        trainer = self.trainer
        done = trainer.iter + 1
        if done < trainer.max_iter and trainer.stop.requested(done):
            trainer.checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
            comm.synchronize()  # whoever started the processes ends them all when the first one leaves
            raise _StopTraining


class SafeCheckpointer(DetectionCheckpointer):
    """Checkpoints as Detectron2 reads them, which besides tell their engine and config, are written whole or not at
    all, and are read without running code.

    Args:
        run: goes into every checkpoint.
    """

    def __init__(self, model: nn.Module, folder: str, *, run: dict[str, Any], **checkpointables: Any) -> None:
        super().__init__(model, folder, **checkpointables)
        self._run = run

    def save(self, name: str, **extra: Any) -> None:
        if not self.save_to_disk:
            return
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        state = {"model": self.model.state_dict(), **parts, **self._run, **extra}
        Checkpointer(self.save_dir).save(name, state, mark_last=not name.startswith("model_best"))

    def _load_file(self, filename: str) -> dict[str, Any]:
        return load_checkpoint(filename)


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


def _check(cfg: CfgNode) -> None:
    """Refuse our own keys where Detectron2 has nothing for them, and backbones that neither has."""
    name = cfg.MODEL.BACKBONE.NAME
    register_backbone(name)
    if name not in BACKBONE_REGISTRY:
        known = [known for known, _ in BACKBONE_REGISTRY]
        raise ConfigError(f"MODEL.BACKBONE.NAME '{name}' is registered by nobody.{suggestion(name, known)}")
    for key, value, why in BUILTIN_ONLY:
        given = get_key(cfg, key)
        if given != value:
            raise ConfigError(
                f"{key} is {given!r}, and with --engine detectron2 it must be {value!r}, as {why}: use the builtin "
                "engine for it."
            )
    if cfg.MODEL.FPN.TOP_BLOCK and BACKBONE_REGISTRY.get(name).__module__ != register_backbone.__module__:
        raise ConfigError(
            f"MODEL.FPN.TOP_BLOCK is {cfg.MODEL.FPN.TOP_BLOCK}, and MODEL.BACKBONE.NAME {name} is Detectron2's, which "
            "does not read it: use build_se_resnet_fpn_backbone."
        )
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCH_REGISTRY:
        known = [known for known, _ in META_ARCH_REGISTRY]
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE '{cfg.MODEL.META_ARCHITECTURE}' is none of Detectron2's."
            f"{suggestion(cfg.MODEL.META_ARCHITECTURE, known)}"
        )
    if cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads" and gate_name(cfg) != "none" and "res5" in cfg.MODEL.GATE.STAGES:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NAME is Res5ROIHeads, whose res5 has no gates in Detectron2, and the network's gate is "
            f"{gate_name(cfg)}: take res5 out of MODEL.GATE.STAGES, or use the builtin engine, whose res5 has them."
        )
    amp = cfg.SOLVER.AMP
    if amp.ENABLED and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("SOLVER.AMP.ENABLED is True, which Detectron2 has for GPUs only: use the builtin engine.")
    if amp.DTYPE not in ("float16", "bfloat16"):
        raise ConfigError(f"SOLVER.AMP.DTYPE '{amp.DTYPE}' is unknown: use float16 or bfloat16.")
    if cfg.SOLVER.OPTIMIZER not in ("SGD", "AdamW"):
        raise ConfigError(f"SOLVER.OPTIMIZER '{cfg.SOLVER.OPTIMIZER}' is unknown: use SGD or AdamW.")


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
