"""From a recipe to a run: pretraining, and evaluation of what came of it."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from .. import __version__, comm
from ..backbones.activation_checkpointing import checkpoint_activations
from ..config.paths import expand_path
from ..config.resolution import dump_config
from ..data.skipping import SkippedImages
from ..data.worker_loader import worker_death_as_error
from ..device import reads_pinned_memory
from ..files import check_writable
from ..layers.fuse import fuse_for_inference
from ..training import build
from ..training.distributed import broadcast_statistics
from ..training.ema import EMA
from ..training.output_folder import OutputFolder
from ..training.precision import Precision
from ..training.preemption import StopRequest, stop_on_signals
from ..training.run_log import run_log
from ..training.runner import Metrics, Runner
from ..weights import load_weights
from .build import build_classifier, build_objective, build_train_pipeline, epochs_to_steps
from .data.dataset import ClassificationDataset
from .data.loader import test_loader, train_loader
from .evaluation import TASK, evaluate_classifier, write_results
from .optimizer import build_pretraining_optimizer
from .preprocessing import architecture, preprocessing
from .resolve import PretrainingFacts, categories, resolve_classifier_evaluation, resolve_pretraining
from .state import ClassifierState

KEEP = 2  # numbered checkpoints: a torn one leaves the one before

logger = logging.getLogger(__name__)


def run_pretraining(
    cfg: CfgNode, *, resume: bool = False, checkpoint: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Train as `cfg` says. Every process of a run calls this.

    Whatever can be refused is refused before the output folder is touched.

    Args:
        cfg: not changed; see `defaults.get_pretrain_cfg`.
        resume: go on from the newest checkpoint in OUTPUT_DIR; the result is that of a run never interrupted.
        checkpoint: the one to resume in place of the newest.
        overwrite: remove the run that OUTPUT_DIR holds.

    Returns:
        The last evaluation on the first process, see `evaluate_classifier`, without the classes; `{}` elsewhere, and
        without data to evaluate on.

    Raises:
        SeDetError: a sentence that says what was wrong and what to do; also when a signal ended the run, saved.
    """
    with run_log() as log, stop_on_signals() as stop, worker_death_as_error():
        _log_engine()
        with OutputFolder(expand_path(cfg.OUTPUT_DIR, "OUTPUT_DIR")) as folder:
            folder.check(resume=resume, overwrite=overwrite)
            cfg, facts = resolve_pretraining(cfg, resume=resume, checkpoint=checkpoint)
            build.set_backend_flags(cfg)
            runner, state = _build_run(cfg, facts, stop)
            del facts  # it may hold a state larger than the model
            summary = (
                f"{cfg.MODEL.NAME}: {sum(p.numel() for p in state.model.parameters()) / 1e6:.2f} M parameters, "
                f"{cfg.MODEL.NUM_CLASSES} classes; {state.images} images to train on, in steps of "
                f"{cfg.SOLVER.IMS_PER_BATCH} ({state.images / cfg.SOLVER.IMS_PER_BATCH:.2f} an epoch)."
            )
            metrics = runner.run(folder, log, config=dump_config(cfg), summary=summary)
            comm.synchronize()
            return metrics.get(TASK, {})


def run_classifier_evaluation(cfg: CfgNode) -> dict[str, Any]:
    """Evaluate MODEL.WEIGHTS on DATASETS.TEST; the results are written to `inference/metrics.json` in OUTPUT_DIR.

    Returns:
        As `evaluate_classifier`.

    Raises:
        SeDetError: no weights or no images were given, or the weights are not of this network.
    """
    with run_log(), stop_on_signals("before its evaluation was done.") as stop, worker_death_as_error():
        _log_engine()
        cfg, facts = resolve_classifier_evaluation(cfg)
        build.set_backend_flags(cfg)
        model = build_classifier(cfg)
        load_weights(model, facts.weights, strict=True, class_names=facts.test.class_names)
        if comm.is_main_process():
            check_writable(cfg.OUTPUT_DIR)
        model = _to_device(cfg, model, facts.device)
        if not cfg.SOLVER.AMP.ENABLED:  # autocast casts layer by layer, and would not see what is inside another
            fuse_for_inference(model)
        return Evaluation(cfg, facts.test, facts.device, stop)(model)


class Evaluation:
    """The run's evaluation: logs and writes the results, and gives them.

    Args:
        stop: asked between batches whether to leave.
    """

    def __init__(
        self, cfg: CfgNode, images: ClassificationDataset, device: torch.device, stop: StopRequest | None = None
    ) -> None:  # fmt: skip
        self._cfg, self._images, self._device, self._stop = cfg, images, device, stop
        self._view = preprocessing(cfg)
        amp = cfg.SOLVER.AMP
        self._precision = Precision(enabled=amp.ENABLED, dtype=amp.DTYPE, device_type=device.type)

    def __call__(self, model: nn.Module, ema: EMA | None = None) -> dict[str, Any]:
        """Evaluate `model`, with its averaged weights where there are any.

        Raises:
            EvaluationStopped: the run was asked to end.
        """
        with ema.applied() if ema is not None else nullcontext():
            broadcast_statistics(model)
            loader = test_loader(
                self._images,
                size=self._view.size,
                crop_ratio=self._view.crop_ratio,
                batch_size=self._cfg.TEST.IMS_PER_BATCH,
                num_workers=self._cfg.DATALOADER.NUM_WORKERS,
                rank=comm.get_rank(),
                world_size=comm.get_world_size(),
                pin_memory=reads_pinned_memory(self._device),
            )
            results = evaluate_classifier(
                model,
                loader if self._stop is None else self._stop.stoppable(loader),
                num_classes=len(self._images.class_names),
                preprocessing=self._view,
                device=self._device,
                autocast=self._precision.autocast(),
                channels_last=self._cfg.MODEL.CHANNELS_LAST,
            )
        if results:
            path = write_results(self._cfg.OUTPUT_DIR, results, self._images.class_names)
            logger.info(
                "top-1 %.2f %%, top-5 %.2f %% (errors %.2f and %.2f), loss %.4f on %d images: %s",
                results["top1"], results["top5"], results["top1_error"], results["top5_error"], results["loss"],
                results["images"], path,
            )  # fmt: skip
        return results


def _build_run(cfg: CfgNode, facts: PretrainingFacts, stop: StopRequest) -> tuple[Runner, ClassifierState]:
    """The parts of a run, the network with its weights and the saved run restored."""
    saved, images, device = facts.saved, facts.train, facts.device
    config = cfg.dump()
    cfg = epochs_to_steps(cfg, len(images))
    rate = build.learning_rate(cfg)
    torch.manual_seed(cfg.SEED)
    model = build_classifier(cfg)
    if cfg.MODEL.WEIGHTS and not saved:
        load_weights(model, cfg.MODEL.WEIGHTS, class_names=images.class_names)
    model = _to_device(cfg, model, device)
    skipped = SkippedImages(cfg.DATALOADER.SKIP_BAD_IMAGES, saved.state.get("skipped") if saved else None)
    loader = train_loader(
        images,
        build_train_pipeline(cfg, images, cfg.SEED),
        start=int(saved.state["iteration"]) if saved else 0,
        accumulate=cfg.SOLVER.ACCUMULATE,
        repeats=cfg.INPUT.REPEATS,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        pin_memory=reads_pinned_memory(device),
        skipped=skipped,
    )
    precision = build.precision(cfg, device)
    state = ClassifierState(
        model=model,
        optimizer=build_pretraining_optimizer(
            cfg, model, base_lr=rate.base_lr, scaled=precision.scaled, pretrained=bool(cfg.MODEL.WEIGHTS)
        ),
        precision=precision,
        ema=build.build_ema(cfg, model),
        seed=cfg.SEED,
        config=config,
        categories=categories(images),
        images=len(images),
        skipped=skipped,
        architecture=architecture(cfg),
    )
    if saved:
        state.restore(saved.state, saved.path)
    evaluation = Evaluation(cfg, facts.test, device, stop) if facts.test is not None else None
    runner = Runner(
        cfg,
        state,
        network=build_objective(cfg, model, cfg.SEED).to(device),
        loader=loader,
        rate=rate,
        evaluate=evaluation and (lambda: _metrics(evaluation(model, state.ema))),
        stop=stop,
        saved=saved,
        keep=KEEP,
        images=cfg.SOLVER.IMS_PER_BATCH,
    )
    if cfg.MODEL.CHECKPOINT_ACTIVATIONS:
        checkpoint_activations(model)
    if cfg.MODEL.COMPILE:
        model.compile()  # in place: the names of the weights stay
    return runner, state


def _metrics(results: dict[str, Any]) -> Metrics:
    return {TASK: {k: v for k, v in results.items() if k != "per_class"}} if results else {}


def _log_engine() -> None:
    logger.info(
        "Pretraining (se_det %s, PyTorch %s), %d process(es).", __version__, torch.__version__, comm.get_world_size()
    )


def _to_device(cfg: CfgNode, model: nn.Module, device: torch.device) -> nn.Module:
    layout = torch.channels_last if cfg.MODEL.CHANNELS_LAST else torch.contiguous_format
    return model.to(device, memory_format=layout)
