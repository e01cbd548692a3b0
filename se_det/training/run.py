"""From a config to a run: training, and evaluation of trained weights."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from .. import __version__, comm
from ..data.coco import CocoDataset
from ..data.loader import build_test_loader, build_train_loader
from ..data.skipping import SkippedImages
from ..data.workers import dead_workers_told
from ..detection.build import build_detector, check_model
from ..detection.compilation import check_compiler, compile_backbone
from ..detection.inference import check_precision, prepare_for_inference
from ..device import pick_device
from ..errors import ConfigError
from ..evaluation.coco_eval import CocoEvaluator, Outcome
from ..evaluation.report import write_report
from ..evaluation.runner import evaluate
from ..files import check_writable, write_text
from ..weights import fit_gates, load_weights, settle_as_saved, settle_weights
from . import data_sets, settings
from .checkpoint import Checkpointer
from .checks import check_best_metric, check_training
from .ema import EMA
from .folder import OutputFolder
from .logs import run_log
from .loop import train
from .metrics import MetricsWriter
from .milestones import Milestones
from .progress import Progress
from .replicas import replicate, share_statistics
from .same_run import check_engine, check_same_run
from .state import RunState, freeze_as_saved
from .stopping import Stop, stop_on_signals

Metrics = dict[str, dict[str, float]]

logger = logging.getLogger(__name__)


def run_training(
    cfg: CfgNode, *, resume: bool = False, overwrite: bool = False, allow_partial: bool = False
) -> Metrics:
    """Train as `cfg` says and evaluate what came of it. Every process of a run calls this.

    Whatever can be refused is refused before the output folder is touched.

    Args:
        cfg: not changed.
        resume: go on from the newest checkpoint in OUTPUT_DIR; the result is that of a run never interrupted.
        overwrite: remove the run that OUTPUT_DIR holds.
        allow_partial: start from weights that lack part of the backbone.

    Returns:
        The last evaluation's metrics on the first process, such as `{"bbox": {"AP": ...}}`; `{}` elsewhere, and
        without data to evaluate on.

    Raises:
        SeDetError: a sentence that says what was wrong and what to do; also when a signal ended the run, saved.
    """
    cfg = _own_copy(cfg)
    with run_log() as log, stop_on_signals() as stop, OutputFolder(cfg.OUTPUT_DIR) as folder, dead_workers_told():
        device = _announce(cfg)
        check_model(cfg)
        check_training(cfg, comm.world_size())
        folder.check(resume=resume, overwrite=overwrite)
        weights = None if resume else settle_weights(cfg)
        train_sets, test_sets = data_sets.training_sets(cfg), data_sets.test_sets(cfg)
        data_sets.check_categories(train_sets, test_sets)
        data_sets.settle_num_classes(cfg, train_sets[0])
        if not test_sets:
            logger.warning("There is no data to evaluate on (DATASETS.VAL_JSON, DATASETS.TEST): nothing is evaluated.")
        data_sets.tell_of_no_annotations(cfg, test_sets)

        categories = data_sets.categories(train_sets[0])
        path, saved = _saved_run(cfg, categories) if resume else (None, None)
        seed = settings.settle_seed(cfg, saved["rng"]["seed"] if saved else None)
        rate = settings.learning_rate(cfg)
        torch.manual_seed(seed)
        model = build_detector(cfg)
        if saved:
            fit_gates(model, saved["model"])
            freeze_as_saved(model, saved)
        elif weights is not None:
            load_weights(model, weights, allow_partial=allow_partial, gate_init=cfg.MODEL.GATE.INIT)
        model.to(device, memory_format=torch.channels_last)
        start = int(saved["iteration"]) if saved else 0
        skipped = SkippedImages(cfg.DATALOADER.SKIP_BAD_IMAGES, saved.get("skipped") if saved else None)
        loader = build_train_loader(
            cfg, train_sets, seed=seed, start=start, rank=comm.rank(), world_size=comm.world_size(), skipped=skipped
        )
        precision = settings.precision(cfg, device)
        run = RunState(
            model=model,
            optimizer=settings.optimizer(cfg, model, base_lr=rate.base_lr, scaled=precision.scaled),
            precision=precision,
            ema=settings.averaged_weights(cfg, model),
            seed=seed,
            config=cfg.dump(),
            categories=categories,
            images=loader.num_images,
            skipped=skipped,
        )
        if saved:
            run.restore(saved, path)
        evaluation = Evaluation(cfg, test_sets, stop) if test_sets else None
        writer: MetricsWriter | None = None
        milestones = Milestones(
            checkpointer=Checkpointer(cfg.OUTPUT_DIR),
            snapshot=run.snapshot,
            weights=run.weights,
            max_iter=cfg.SOLVER.MAX_ITER,
            checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
            evaluate=evaluation and (lambda: evaluation(model, run.ema)),
            eval_period=cfg.TEST.EVAL_PERIOD,
            best_metric=cfg.TEST.BEST_METRIC,
            early_stop=cfg.TEST.EARLY_STOP,
            on_metrics=lambda step, values: writer.write(step, values),
            best=saved["best"] if saved else None,
        )
        if saved:
            milestones.refuse_finished(start, path)
            logger.info("Resuming %s after %d steps.", path, start)
            del saved

        folder.claim()
        if comm.is_main():
            log.write_to(cfg.OUTPUT_DIR)
            write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", run.config)
            writer = MetricsWriter(cfg.OUTPUT_DIR, start=start, evaluated=not milestones.owes_evaluation(start))
        _tell_size(model, run.images)
        try:
            if not milestones.evaluate_if_due(start) and start < cfg.SOLVER.MAX_ITER:
                with stop.awaited():
                    train(
                        replicate(model),
                        iter(loader),
                        run.optimizer,
                        rate,
                        start=start,
                        max_iter=cfg.SOLVER.MAX_ITER,
                        seed=seed,
                        milestones=milestones,
                        progress=Progress(start=start, max_iter=cfg.SOLVER.MAX_ITER, writer=writer),
                        accumulate=cfg.SOLVER.ACCUMULATE,
                        precision=run.precision,
                        clip=settings.gradient_clip(cfg, model),
                        ema=run.ema,
                        read_every_step=device.type == "cpu",
                        stop=stop,
                        skipped=skipped,
                    )
        finally:
            if writer is not None:
                writer.close()
        if comm.is_main():
            write_report(cfg.OUTPUT_DIR, evaluation.outcomes if evaluation else {}, config=run.config)
        comm.barrier()
        return milestones.last_metrics


def run_evaluation(cfg: CfgNode) -> Metrics:
    """Evaluate MODEL.WEIGHTS on the test data; the results go to `inference/` and `report.html` in OUTPUT_DIR.

    Returns:
        The metrics on the first process, `{}` elsewhere.

    Raises:
        SeDetError: no weights were given, there is nothing to evaluate on, or the weights are not of this network.
    """
    cfg = _own_copy(cfg)
    with run_log(), stop_on_signals("before its evaluation was done.") as stop, dead_workers_told():
        device = _announce(cfg)
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError("MODEL.WEIGHTS is empty: no weights were given to evaluate. Set MODEL.WEIGHTS <path>.")
        test_sets = data_sets.test_sets(cfg)
        if not test_sets:
            raise ConfigError(
                "There is no data to evaluate on: give --val-json and --val-images (DATASETS.VAL_JSON and "
                "DATASETS.VAL_IMAGES), or name a data set in DATASETS.TEST."
            )
        data_sets.settle_num_classes(cfg, next(iter(test_sets.values())))
        weights = settle_weights(cfg, trained=True)
        model = build_detector(cfg)
        load_weights(model, weights, whole=True)
        if comm.is_main():
            check_writable(cfg.OUTPUT_DIR)
        evaluation = Evaluation(cfg, test_sets, stop)
        metrics = evaluation(model.to(device))
        if comm.is_main():
            write_report(cfg.OUTPUT_DIR, evaluation.outcomes, config=cfg.dump())
        return metrics


class Evaluation:
    """The run's evaluation: `evaluation(model)` gives the metrics, with several sets prefixed by their names.

    Args:
        stop: asked between batches whether to leave.
    """

    def __init__(self, cfg: CfgNode, test_sets: dict[str, CocoDataset], stop: Stop | None = None) -> None:
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        check_best_metric(cfg, tasks, test_sets)
        check_precision(cfg.TEST.PRECISION)
        if cfg.TEST.COMPILE:
            check_compiler(pick_device(cfg.MODEL.DEVICE))
        folder = Path(cfg.OUTPUT_DIR)
        self._cfg, self._stop = cfg, stop
        self._parts = {
            name: (dataset, CocoEvaluator(dataset, tasks, folder if len(test_sets) == 1 else folder / name))
            for name, dataset in test_sets.items()
        }

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """What the last evaluation found per data set, on the first process."""
        return {name: e.outcome for name, (_, e) in self._parts.items() if e.outcome is not None}

    def __call__(self, model: nn.Module, ema: EMA | None = None) -> Metrics:
        """Evaluate `model`, with its averaged weights where there are any.

        Raises:
            EvaluationLeft: the run was asked to end.
        """
        if ema is None:
            return self._evaluate(model)
        with ema.applied():
            return self._evaluate(model)

    def _evaluate(self, model: nn.Module) -> Metrics:
        share_statistics(model)
        model = prepare_for_inference(copy.deepcopy(model), precision=self._cfg.TEST.PRECISION)
        if self._cfg.TEST.COMPILE:
            compile_backbone(model)
        results: Metrics = {}
        for name, (dataset, evaluator) in self._parts.items():
            loader = build_test_loader(self._cfg, dataset, rank=comm.rank(), world_size=comm.world_size())
            if self._stop is not None:
                loader = self._stop.between(loader)
            for task, values in evaluate(model, loader, evaluator, infer=model.detect).items():
                results[task if len(self._parts) == 1 else f"{name}/{task}"] = values
        return results


def _own_copy(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    return cfg


def _announce(cfg: CfgNode) -> torch.device:
    logger.info(
        "Engine: builtin (se_det %s, PyTorch %s), %d process(es).", __version__, torch.__version__, comm.world_size()
    )
    device = settings.settle_device(cfg)
    settings.settle_backends(cfg)
    return device


def _saved_run(cfg: CfgNode, categories: list[dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to resume, checked; read by the first process, as other machines may not have its folder."""
    found = None
    if comm.is_main():
        found = Checkpointer(cfg.OUTPUT_DIR).newest()
        path, saved = found
        check_engine(saved, path)
        settle_as_saved(cfg, saved["config"])
        check_same_run(saved, cfg, categories, path)
    path, saved = comm.broadcast_object(found)
    settle_as_saved(cfg, saved["config"])
    return path, saved


def _tell_size(model: nn.Module, images: int) -> None:
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info(
        "%.2f M parameters, of which %.2f M are trained; %d images to train on.",
        parameters / 1e6, trained / 1e6, images,
    )  # fmt: skip
