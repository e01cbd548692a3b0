"""Detectron2's trainer with se_det's weights, checkpoints and keys."""

from __future__ import annotations

import os
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    SemSegEvaluator,
)
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from fvcore.common.config import CfgNode
from torch import nn

from .. import comm
from ..errors import ConfigError
from ..training import build
from ..training.checkpoint import Checkpointer, load_checkpoint
from ..training.preemption import StopRequest
from .detectron2_results import best_metric


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
