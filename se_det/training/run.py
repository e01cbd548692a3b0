"""From a config to a run: training, and evaluation of trained weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import nn

from .. import __version__, comm
from ..backbones.activation_checkpointing import checkpoint_activations
from ..config.paths import expand_path
from ..config.resolution import dump_config
from ..data.coco import CocoDataset
from ..data.loader import build_test_loader, build_train_loader
from ..data.skipping import SkippedImages
from ..data.worker_loader import worker_death_as_error
from ..detection.build import build_detector
from ..detection.compilation import check_compiler, compile_backbone
from ..detection.fuse import check_precision, prepare_for_inference
from ..device import reads_pinned_memory, select_device
from ..evaluation.best_f1 import as_metadata
from ..evaluation.coco_eval import EvaluationResult
from ..evaluation.evaluator import Evaluator, Evaluators, build_evaluators, evaluate
from ..evaluation.report import detections_drawn, write_report
from ..evaluation.report.pixels import Outcome
from ..evaluation.test_time_augmentation import build_augmented_inference, check_test_augmentation
from ..evaluation.tiled import TiledEvaluator
from ..evaluation.validation_loss import ValidationLoss
from ..files import check_writable
from ..inference.exported import ExportedDetector
from ..inference.tiled import build_window_sampler
from ..weights import load_weights, resize_gates
from . import build, datasets
from .config_checks import check_best_metric
from .distributed import broadcast_statistics
from .ema import EMA
from .loss_reader import is_loss
from .output_folder import OutputFolder
from .precise_bn import PreciseBN
from .preemption import StopRequest, stop_on_signals
from .resolve import RunFacts, resolve_evaluation, resolve_training
from .run_log import run_log
from .runner import Metrics, Runner
from .state import RunState, restore_frozen
from .trunk_rates import trunk_factors

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
    with run_log() as log, stop_on_signals() as stop, worker_death_as_error():
        _log_engine()
        folder_name = expand_path(cfg.OUTPUT_DIR, "OUTPUT_DIR")
        with OutputFolder(folder_name) as folder:
            folder.check(resume=resume, overwrite=overwrite)
            cfg, facts = resolve_training(cfg, resume=resume)
            build.set_backend_flags(cfg)
            evaluation = Evaluation(cfg, facts.test, stop) if facts.test else None
            runner, state = _build_run(cfg, facts, evaluation, stop, allow_partial=allow_partial)
            del facts  # it may hold a state larger than the model
            metrics = runner.run(folder, log, config=dump_config(cfg), summary=_size(state))
            comm.synchronize()
            return metrics


def _build_run(
    cfg: CfgNode, facts: RunFacts, evaluation: Evaluation | None, stop: StopRequest, *, allow_partial: bool
) -> tuple[Runner, RunState]:
    """The parts of a training, the network with its weights and the saved run restored."""
    saved = facts.saved
    rate = build.learning_rate(cfg)
    torch.manual_seed(cfg.SEED)
    model = build_detector(cfg)
    if saved:
        resize_gates(model, saved.state["model"])
        restore_frozen(model, saved.state)
    elif facts.weights is not None:
        load_weights(
            model,
            facts.weights,
            allow_partial=allow_partial,
            gate_init=cfg.MODEL.GATE.INIT,
            class_names=facts.train[0].category_names,
        )
    build.fill_class_weights(cfg, model, facts.train)
    if cfg.MODEL.CHECKPOINT_ACTIVATIONS:
        checkpoint_activations(model)
    model.to(facts.device, memory_format=torch.channels_last)
    skipped = SkippedImages(cfg.DATALOADER.SKIP_BAD_IMAGES, saved.state.get("skipped") if saved else None)
    batches = partial(
        build_train_loader, cfg, facts.train, seed=cfg.SEED, rank=comm.get_rank(), world_size=comm.get_world_size(),
        pin_memory=reads_pinned_memory(facts.device),
        skipped=skipped,
    )  # fmt: skip
    loader = batches(start=int(saved.state["iteration"]) if saved else 0)
    precision = build.precision(cfg, facts.device)
    state = RunState(
        model=model,
        optimizer=build.optimizer(
            cfg, model, base_lr=rate.base_lr, scaled=precision.scaled, lr_factors=trunk_factors(cfg, model)
        ),
        precision=precision,
        ema=build.build_ema(cfg, model),
        seed=cfg.SEED,
        config=cfg.dump(),
        categories=datasets.categories(facts.train[0], keypoints=cfg.MODEL.KEYPOINT_ON),
        images=loader.num_images,
        pixel_classes=datasets.pixel_classes(cfg, facts.train[0]),
        skipped=skipped,
        unit="windows" if cfg.INPUT.TILE.SIZE else "images",
    )
    if saved:
        state.restore(saved.state, saved.path)
    evaluate = evaluation and (lambda: evaluation(model, state.ema))
    refine = finish = None
    if cfg.TEST.PRECISE_BN.ENABLED:
        refine = PreciseBN(
            model, batches=lambda step: batches(start=step), num_iter=cfg.TEST.PRECISE_BN.NUM_ITER, seed=cfg.SEED,
            ema=state.ema,
        )  # fmt: skip
    if evaluation and cfg.TEST.AUG.ENABLED:
        finish = lambda: evaluation.augmented(model, state.ema)  # noqa: E731
    runner = Runner(
        cfg, state, network=model, loader=loader, rate=rate, evaluate=evaluate, stop=stop, saved=saved,
        findings=evaluation and evaluation.findings, refine=refine, finish=finish,
        pictures=evaluation and evaluation.pictures,
        report=lambda: write_report(
            cfg.OUTPUT_DIR, evaluation.outcomes if evaluation else {}, config=state.config,
            others=evaluation.other_outcomes if evaluation else {},
        ),
    )  # fmt: skip
    return runner, state


def run_evaluation(cfg: CfgNode) -> Metrics:
    """Evaluate MODEL.WEIGHTS on the test data; the results go to `inference/` and `report.html` in OUTPUT_DIR.

    Returns:
        The metrics on the first process, `{}` elsewhere.

    Raises:
        SeDetError: no weights were given, there is nothing to evaluate on, or the weights are not of this network.
    """
    with run_log(), stop_on_signals("before its evaluation was done.") as stop, worker_death_as_error():
        _log_engine()
        cfg, facts = resolve_evaluation(cfg)
        build.set_backend_flags(cfg)
        if facts.exported is not None:
            model: nn.Module = facts.exported
        else:
            model = build_detector(cfg)
            load_weights(model, facts.weights, strict=True, class_names=next(iter(facts.test.values())).category_names)
            model.to(facts.device)
        if comm.is_main_process():
            check_writable(cfg.OUTPUT_DIR)
        evaluation = Evaluation(cfg, facts.test, stop)
        metrics = evaluation(model)
        if cfg.TEST.AUG.ENABLED:
            metrics = {**metrics, **evaluation.augmented(model)}
        if comm.is_main_process():
            _log_thresholds(evaluation.findings())
            write_report(cfg.OUTPUT_DIR, evaluation.outcomes, config=cfg.dump(), others=evaluation.other_outcomes)
        return metrics


class Evaluation:
    """The run's evaluation: `evaluation(model)` gives the metrics, with several sets prefixed by their names.

    Args:
        stop: asked between batches whether to leave.
    """

    def __init__(self, cfg: CfgNode, test_datasets: dict[str, CocoDataset], stop: StopRequest | None = None) -> None:
        check_precision(cfg.TEST.PRECISION)
        check_test_augmentation(cfg)
        if cfg.TEST.COMPILE:
            check_compiler(select_device(cfg.MODEL.DEVICE))
        folder = Path(cfg.OUTPUT_DIR)
        self._cfg, self._stop = cfg, stop
        self._parts = {
            name: (dataset, build_evaluators(cfg, dataset, folder if len(test_datasets) == 1 else folder / name))
            for name, dataset in test_datasets.items()
        }
        self._losses = {
            name: ValidationLoss(cfg, dataset) for name, dataset in test_datasets.items() if cfg.TEST.EVAL_LOSS
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
        found = ((name, self._outcomes(evaluators, EvaluationResult)) for name, (_, evaluators) in self._parts.items())
        return {name: outcomes[0] for name, outcomes in found if outcomes}

    @property
    def other_outcomes(self) -> dict[str, list[Outcome]]:
        """What evaluators of pixels, and those that give numbers alone, found last per data set; likewise."""
        found = ((name, self._outcomes(evaluators, Outcome)) for name, (_, evaluators) in self._parts.items())
        return {name: outcomes for name, outcomes in found if outcomes}

    @staticmethod
    def _outcomes(evaluators: Evaluators, kind: Any) -> list[Any]:
        found = (getattr(part, "outcome", None) for part in evaluators.parts.values())
        return [outcome for outcome in found if isinstance(outcome, kind)]

    def findings(self) -> dict[str, Any]:
        """What a checkpoint of the weights evaluated keeps, on the first process: the score thresholds of best F1, of
        the data set that TEST.BEST_METRIC names, or else the first; `{}` where COCO's evaluator was not asked."""
        outcomes, metric = self.outcomes, self._cfg.TEST.BEST_METRIC
        chosen = next((name for name in outcomes if metric.startswith(f"{name}/")), next(iter(outcomes), None))
        if chosen is None:
            return {}
        return as_metadata(outcomes[chosen].truth.class_labels, outcomes[chosen].thresholds)

    def pictures(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names of some images, always the same, and what the last evaluation found in them, drawn; on the first
        process."""
        for outcome in list(self.outcomes.values())[:1]:
            yield from detections_drawn(outcome)

    def __call__(self, model: nn.Module, ema: EMA | None = None) -> Metrics:
        """Evaluate `model`, with its averaged weights where there are any.

        Raises:
            EvaluationStopped: the run was asked to end.
        """
        if ema is None:
            return self._evaluate(model)
        with ema.applied():
            return self._evaluate(model)

    def augmented(self, model: nn.Module, ema: EMA | None = None) -> Metrics:
        """As the call, under TEST.AUG: tasks have `_TTA` after their names. The results go to `TTA/`.

        Raises:
            EvaluationStopped: the run was asked to end.
        """
        with nullcontext() if ema is None else ema.applied():
            model = self._prepared(model)
            results: Metrics = {}
            for name, (dataset, _) in self._parts.items():
                folder = Path(self._cfg.OUTPUT_DIR, "TTA", *([name] if len(self._parts) > 1 else []))
                evaluator = build_evaluators(self._cfg, dataset, folder)
                infer = build_augmented_inference(self._cfg, model)
                for task, values in self._run(model, dataset, evaluator, infer).items():
                    results[f"{self._key(name, task)}_TTA"] = values
        return results

    def _evaluate(self, model: nn.Module) -> Metrics:
        losses = {name: self._validation_loss(name, model) for name in self._losses}
        model = self._prepared(model)
        results: Metrics = {}
        for name, (dataset, evaluator) in self._parts.items():
            for task, values in self._run(model, dataset, evaluator, model.detect).items():
                results[self._key(name, task)] = values
            if losses.get(name):
                results[self._key(name, "validation")] = losses[name]
        return results

    def _prepared(self, model: nn.Module) -> nn.Module:
        if isinstance(model, ExportedDetector):
            return model
        broadcast_statistics(model)
        model = prepare_for_inference(copy.deepcopy(model), precision=self._cfg.TEST.PRECISION)
        if self._cfg.TEST.COMPILE:
            compile_backbone(model)
        return model

    def _run(
        self, model: nn.Module, dataset: CocoDataset, evaluator: Evaluator, infer: Callable[[list[dict]], list[dict]]
    ) -> Metrics:
        """An evaluator's numbers for a data set: of its images, or under TEST.TILE of their windows put together."""
        sampler = build_window_sampler(self._cfg)
        loader = build_test_loader(
            self._cfg,
            dataset,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            pin_memory=reads_pinned_memory(model.device),
            sampler=sampler,
        )
        if self._stop is not None:
            loader = self._stop.stoppable(loader)
        if sampler is None:
            return evaluate(model, loader, evaluator, infer=infer)
        return evaluate(model, loader, TiledEvaluator(evaluator, self._cfg, sampler), infer=infer, unit="window")

    def _key(self, name: str, task: str) -> str:
        return task if len(self._parts) == 1 else f"{name}/{task}"

    def _validation_loss(self, name: str, model: nn.Module) -> dict[str, float]:
        """The losses on a data set, with their sum, on the first process."""
        arithmetic = build.precision(self._cfg, select_device(self._cfg.MODEL.DEVICE))
        watched = self._stop.stoppable if self._stop is not None else iter
        losses = self._losses[name](model, autocast=arithmetic.autocast, watched=watched)
        if losses:
            losses = {"total_loss": sum(value for term, value in losses.items() if is_loss(term)), **losses}
            told = ", ".join(f"{term} {value:.4g}" for term, value in losses.items())
            logger.info("validation%s: %s", "" if len(self._parts) == 1 else f" on {name}", told)
        return losses


def _log_thresholds(found: dict[str, Any]) -> None:
    """The scores of best F1, a class a line."""
    names = found.get("thresholds", {})
    width = max(map(len, names), default=0)
    for name, score in names.items():
        worth = found["threshold_metrics"][name]
        told = "none: no object is annotated or none is found" if score is None else (
            f"{score:.3f} (F1 {worth['f1']:.3f}, precision {worth['precision']:.3f}, recall {worth['recall']:.3f})"
        )  # fmt: skip
        logger.info("score of best F1: %-*s %s", width, name, told)


def _log_engine() -> None:
    logger.info(
        "Engine: builtin (se_det %s, PyTorch %s), %d process(es).",
        __version__, torch.__version__, comm.get_world_size(),
    )  # fmt: skip


def _size(state: RunState) -> str:
    parameters = sum(p.numel() for p in state.model.parameters())
    trained = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    return (
        f"{parameters / 1e6:.2f} M parameters, of which {trained / 1e6:.2f} M are trained; {state.images} "
        f"{state.unit} to train on."
    )
