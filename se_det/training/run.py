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
from ..config.paths import expand_paths
from ..data.coco import CocoDataset, compare_categories
from ..data.loader import build_test_loader, build_train_loader
from ..data.skipping import SkippedImages
from ..data.worker_loader import worker_death_as_error
from ..detection.build import build_detector, check_model
from ..detection.compilation import check_compiler, compile_backbone
from ..detection.fuse import check_precision, prepare_for_inference
from ..device import select_device
from ..errors import ConfigError
from ..evaluation.coco_eval import EvaluationResult
from ..evaluation.evaluator import build_evaluators, evaluate
from ..evaluation.report import write_report
from ..files import check_writable, write_text
from ..weights import apply_saved_conventions, apply_weight_conventions, load_weights, resize_gates
from . import build, datasets
from .checkpoint import Checkpointer
from .config_checks import check_best_metric, check_training
from .distributed import broadcast_statistics, wrap_distributed
from .ema import EMA
from .hooks import PeriodicActions
from .loop import train
from .output_folder import OutputFolder
from .preemption import StopRequest, stop_on_signals
from .progress import Progress
from .resume_checks import check_engine, check_resumable
from .run_log import run_log
from .state import RunState, restore_frozen
from .writers import Writers

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
    cfg = _copy_config(cfg)
    with run_log() as log, stop_on_signals() as stop, OutputFolder(cfg.OUTPUT_DIR) as folder, worker_death_as_error():
        device = _log_setup(cfg)
        check_model(cfg)
        check_training(cfg, comm.get_world_size())
        folder.check(resume=resume, overwrite=overwrite)
        weights = None if resume else apply_weight_conventions(cfg)
        train_datasets, test_datasets = datasets.train_datasets(cfg), datasets.test_datasets(cfg)
        datasets.check_categories(train_datasets, test_datasets)
        datasets.resolve_num_classes(cfg, train_datasets[0])
        if not test_datasets:
            logger.warning("There is no data to evaluate on (DATASETS.VAL_JSON, DATASETS.TEST): nothing is evaluated.")
        datasets.warn_no_annotations(cfg, test_datasets)

        categories = datasets.categories(train_datasets[0])
        path, saved = _saved_run(cfg, categories) if resume else (None, None)
        seed = build.resolve_seed(cfg, saved["rng"]["seed"] if saved else None)
        rate = build.learning_rate(cfg)
        torch.manual_seed(seed)
        model = build_detector(cfg)
        if saved:
            resize_gates(model, saved["model"])
            restore_frozen(model, saved)
        elif weights is not None:
            load_weights(
                model,
                weights,
                allow_partial=allow_partial,
                gate_init=cfg.MODEL.GATE.INIT,
                class_names=train_datasets[0].category_names,
            )
        model.to(device, memory_format=torch.channels_last)
        start = int(saved["iteration"]) if saved else 0
        skipped = SkippedImages(cfg.DATALOADER.SKIP_BAD_IMAGES, saved.get("skipped") if saved else None)
        loader = build_train_loader(
            cfg,
            train_datasets,
            seed=seed,
            start=start,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            skipped=skipped,
        )
        precision = build.precision(cfg, device)
        run = RunState(
            model=model,
            optimizer=build.optimizer(cfg, model, base_lr=rate.base_lr, scaled=precision.scaled),
            precision=precision,
            ema=build.build_ema(cfg, model),
            seed=seed,
            config=cfg.dump(),
            categories=categories,
            images=loader.num_images,
            skipped=skipped,
        )
        if saved:
            run.restore(saved, path)
        evaluation = Evaluation(cfg, test_datasets, stop) if test_datasets else None
        writer: Writers | None = None
        actions = PeriodicActions(
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
            actions.check_unfinished(start, path)
            logger.info("Resuming %s after %d steps.", path, start)
            del saved

        folder.acquire()
        if comm.is_main_process():
            log.write_to(cfg.OUTPUT_DIR)
            write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", run.config)
            evaluated = not actions.evaluation_pending(start)
            writer = Writers(cfg.WRITERS, cfg.OUTPUT_DIR, start=start, evaluated=evaluated)
        _log_size(model, run.images)
        try:
            if not actions.evaluate_if_due(start) and start < cfg.SOLVER.MAX_ITER:
                with stop.deferred():
                    train(
                        wrap_distributed(model),
                        iter(loader),
                        run.optimizer,
                        rate,
                        start=start,
                        max_iter=cfg.SOLVER.MAX_ITER,
                        seed=seed,
                        actions=actions,
                        progress=Progress(start=start, max_iter=cfg.SOLVER.MAX_ITER, writer=writer),
                        accumulate=cfg.SOLVER.ACCUMULATE,
                        precision=run.precision,
                        clip=build.gradient_clip(cfg, model),
                        ema=run.ema,
                        read_every_step=device.type == "cpu",
                        stop=stop,
                        skipped=skipped,
                    )
        finally:
            if writer is not None:
                writer.close()
        if comm.is_main_process():
            write_report(cfg.OUTPUT_DIR, evaluation.outcomes if evaluation else {}, config=run.config)
        comm.synchronize()
        return actions.last_metrics


def run_evaluation(cfg: CfgNode) -> Metrics:
    """Evaluate MODEL.WEIGHTS on the test data; the results go to `inference/` and `report.html` in OUTPUT_DIR.

    Returns:
        The metrics on the first process, `{}` elsewhere.

    Raises:
        SeDetError: no weights were given, there is nothing to evaluate on, or the weights are not of this network.
    """
    cfg = _copy_config(cfg)
    with run_log(), stop_on_signals("before its evaluation was done.") as stop, worker_death_as_error():
        device = _log_setup(cfg)
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError("MODEL.WEIGHTS is empty: no weights were given to evaluate. Set MODEL.WEIGHTS <path>.")
        test_datasets = datasets.test_datasets(cfg)
        if not test_datasets:
            raise ConfigError(
                "There is no data to evaluate on: give --val-json and --val-images (DATASETS.VAL_JSON and "
                "DATASETS.VAL_IMAGES), or name a data set in DATASETS.TEST."
            )
        weights = apply_weight_conventions(cfg, trained=True)
        first = next(iter(test_datasets.values()))
        for other in test_datasets.values():
            compare_categories(first, other)
        datasets.resolve_num_classes(cfg, first)
        model = build_detector(cfg)
        load_weights(model, weights, strict=True, class_names=first.category_names)
        if comm.is_main_process():
            check_writable(cfg.OUTPUT_DIR)
        evaluation = Evaluation(cfg, test_datasets, stop)
        metrics = evaluation(model.to(device))
        if comm.is_main_process():
            write_report(cfg.OUTPUT_DIR, evaluation.outcomes, config=cfg.dump())
        return metrics


class Evaluation:
    """The run's evaluation: `evaluation(model)` gives the metrics, with several sets prefixed by their names.

    Args:
        stop: asked between batches whether to leave.
    """

    def __init__(self, cfg: CfgNode, test_datasets: dict[str, CocoDataset], stop: StopRequest | None = None) -> None:
        check_precision(cfg.TEST.PRECISION)
        if cfg.TEST.COMPILE:
            check_compiler(select_device(cfg.MODEL.DEVICE))
        folder = Path(cfg.OUTPUT_DIR)
        self._cfg, self._stop = cfg, stop
        self._parts = {
            name: (dataset, build_evaluators(cfg, dataset, folder if len(test_datasets) == 1 else folder / name))
            for name, dataset in test_datasets.items()
        }
        known = [evaluator.metrics() for _, evaluator in self._parts.values()]
        if None not in known:
            prefixes = [f"{name}/" for name in self._parts] if len(known) > 1 else [""]
            check_best_metric(
                cfg.TEST.BEST_METRIC, [f"{prefix}{name}" for prefix, names in zip(prefixes, known) for name in names]
            )

    @property
    def outcomes(self) -> dict[str, EvaluationResult]:
        """What the last evaluation found per data set, on the first process."""
        found = {name: evaluators.parts.get("coco") for name, (_, evaluators) in self._parts.items()}
        return {name: coco.outcome for name, coco in found.items() if coco is not None and coco.outcome is not None}

    def __call__(self, model: nn.Module, ema: EMA | None = None) -> Metrics:
        """Evaluate `model`, with its averaged weights where there are any.

        Raises:
            EvaluationStopped: the run was asked to end.
        """
        if ema is None:
            return self._evaluate(model)
        with ema.applied():
            return self._evaluate(model)

    def _evaluate(self, model: nn.Module) -> Metrics:
        broadcast_statistics(model)
        model = prepare_for_inference(copy.deepcopy(model), precision=self._cfg.TEST.PRECISION)
        if self._cfg.TEST.COMPILE:
            compile_backbone(model)
        results: Metrics = {}
        for name, (dataset, evaluator) in self._parts.items():
            loader = build_test_loader(self._cfg, dataset, rank=comm.get_rank(), world_size=comm.get_world_size())
            if self._stop is not None:
                loader = self._stop.stoppable(loader)
            for task, values in evaluate(model, loader, evaluator, infer=model.detect).items():
                results[task if len(self._parts) == 1 else f"{name}/{task}"] = values
        return results


def _copy_config(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    expand_paths(cfg)
    return cfg


def _log_setup(cfg: CfgNode) -> torch.device:
    logger.info(
        "Engine: builtin (se_det %s, PyTorch %s), %d process(es).",
        __version__,
        torch.__version__,
        comm.get_world_size(),
    )
    device = build.resolve_device(cfg)
    build.set_backend_flags(cfg)
    return device


def _saved_run(cfg: CfgNode, categories: list[dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to resume, checked; read by the first process, as other machines may not have its folder."""
    found = None
    if comm.is_main_process():
        found = Checkpointer(cfg.OUTPUT_DIR).latest()
        path, saved = found
        check_engine(saved, path)
        apply_saved_conventions(cfg, saved["config"])
        check_resumable(saved, cfg, categories, path)
    path, saved = comm.broadcast_object(found)
    apply_saved_conventions(cfg, saved["config"])
    return path, saved


def _log_size(model: nn.Module, images: int) -> None:
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info(
        "%.2f M parameters, of which %.2f M are trained; %d images to train on.",
        parameters / 1e6, trained / 1e6, images,
    )  # fmt: skip
