"""From a recipe to a run: pretraining, and evaluation of what came of it."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from .. import __version__, comm
from ..config.paths import expand_paths
from ..data.skipping import SkippedImages
from ..data.worker_loader import worker_death_as_error
from ..errors import CheckpointError, ConfigError, DataError
from ..files import check_writable, write_text
from ..layers.fuse import fuse_for_inference
from ..training import build as parts
from ..training.checkpoint import Checkpointer, load_checkpoint
from ..training.distributed import broadcast_statistics, wrap_distributed
from ..training.ema import EMA
from ..training.hooks import PeriodicActions
from ..training.loop import train
from ..training.output_folder import OutputFolder
from ..training.precision import Precision
from ..training.preemption import StopRequest, stop_on_signals
from ..training.progress import Progress
from ..training.resume_checks import check_engine, check_resumable
from ..training.run_log import RunLog, run_log
from ..training.writers import Writers
from ..weights import load_weights, read_weights
from .activation_checkpointing import checkpoint_activations
from .build import MUTABLE_KEYS, build_classifier, build_objective, build_train_pipeline, check_recipe, epochs_to_steps
from .data.dataset import ClassificationDataset, read_class_names
from .data.dataset_factory import open_image_dataset
from .data.loader import test_loader, train_loader
from .evaluation import TASK, evaluate_classifier, write_results
from .optimizer import build_pretraining_optimizer
from .preprocessing import architecture, preprocessing
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
    cfg = cfg.clone()
    cfg.defrost()
    expand_paths(cfg)
    with run_log() as log, stop_on_signals() as stop, OutputFolder(cfg.OUTPUT_DIR) as folder, worker_death_as_error():
        device = _log_setup(cfg)
        check_recipe(cfg)
        folder.check(resume=resume, overwrite=overwrite)
        images, test_images = _data(cfg)
        path, saved = _saved_run(cfg, images, checkpoint) if resume else (None, None)
        run = _Run(cfg, device, images, test_images, path, saved, stop)
        del saved
        folder.acquire()
        return run.train(log)


def run_classifier_evaluation(cfg: CfgNode) -> dict[str, Any]:
    """Evaluate MODEL.WEIGHTS on DATASETS.TEST; the results are written to `inference/metrics.json` in OUTPUT_DIR.

    Returns:
        As `evaluate_classifier`.

    Raises:
        SeDetError: no weights or no images were given, or the weights are not of this network.
    """
    cfg = cfg.clone()
    cfg.defrost()
    expand_paths(cfg)
    with run_log(), stop_on_signals("before its evaluation was done.") as stop, worker_death_as_error():
        device = _log_setup(cfg)
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError("No weights were given to evaluate: set MODEL.WEIGHTS <path>, or --resume <checkpoint>.")
        file = read_weights(cfg.MODEL.WEIGHTS)
        names = [str(c["name"]) for c in file.extra["categories"]] if "architecture" in file.extra else None
        test_images = open_image_dataset(
            cfg.DATASETS.TEST,
            root=cfg.DATASETS.TEST_ROOT,
            classes=names or read_class_names(cfg.DATASETS.CLASSES),
            num_classes=0 if names else cfg.MODEL.NUM_CLASSES,
        )
        cfg.MODEL.NUM_CLASSES = len(test_images.class_names)
        check_recipe(cfg)
        model = build_classifier(cfg)
        load_weights(model, file, strict=True, class_names=test_images.class_names)
        if comm.is_main_process():
            check_writable(cfg.OUTPUT_DIR)
        model = _to_device(cfg, model, device)
        if not cfg.SOLVER.AMP.ENABLED:  # autocast casts layer by layer, and would not see what is inside another
            fuse_for_inference(model)
        return Evaluation(cfg, test_images, device, stop)(model)


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
                pin_memory=self._device.type == "cuda",
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


class _Run:
    """The parts of a run, put together."""

    def __init__(
        self,
        cfg: CfgNode,
        device: torch.device,
        images: ClassificationDataset,
        test_images: ClassificationDataset | None,
        path: Path | None,
        saved: dict[str, Any] | None,
        stop: StopRequest,
    ) -> None:
        self._stop = stop
        if saved:
            cfg.MODEL.WEIGHTS = _weights_of(saved)
        seed = parts.resolve_seed(cfg, saved["rng"]["seed"] if saved else None)
        self.config = cfg.dump()
        self.cfg = settled = epochs_to_steps(cfg, len(images))
        self.rate = parts.learning_rate(settled)
        torch.manual_seed(seed)
        model = build_classifier(settled)
        if cfg.MODEL.WEIGHTS and not saved:
            load_weights(model, cfg.MODEL.WEIGHTS, class_names=images.class_names)
        self.model = model = _to_device(settled, model, device)
        self.start = int(saved["iteration"]) if saved else 0
        skipped = SkippedImages(settled.DATALOADER.SKIP_BAD_IMAGES, saved.get("skipped") if saved else None)
        self.loader = train_loader(
            images,
            build_train_pipeline(settled, images, seed),
            start=self.start,
            accumulate=settled.SOLVER.ACCUMULATE,
            repeats=settled.INPUT.REPEATS,
            num_workers=settled.DATALOADER.NUM_WORKERS,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            pin_memory=device.type == "cuda",
            skipped=skipped,
        )
        precision = parts.precision(settled, device)
        self.state = ClassifierState(
            model=model,
            optimizer=build_pretraining_optimizer(
                settled, model, base_lr=self.rate.base_lr, scaled=precision.scaled, pretrained=bool(cfg.MODEL.WEIGHTS)
            ),
            precision=precision,
            ema=parts.build_ema(settled, model),
            seed=seed,
            config=self.config,
            categories=categories(images),
            images=len(images),
            skipped=skipped,
            architecture=architecture(cfg),
        )
        if saved:
            self.state.restore(saved, path)
        self.objective = build_objective(settled, model, seed).to(device)
        self.writer: Writers | None = None
        evaluation = Evaluation(settled, test_images, device, stop) if test_images is not None else None
        self.actions = PeriodicActions(
            checkpointer=Checkpointer(settled.OUTPUT_DIR, keep=KEEP),
            snapshot=self.state.snapshot,
            weights=self.state.weights,
            max_iter=settled.SOLVER.MAX_ITER,
            checkpoint_period=settled.SOLVER.CHECKPOINT_PERIOD,
            evaluate=evaluation and (lambda: self._metrics(evaluation(model, self.state.ema))),
            eval_period=settled.TEST.EVAL_PERIOD,
            best_metric=settled.TEST.BEST_METRIC,
            early_stop=settled.TEST.EARLY_STOP,
            on_metrics=lambda step, values: self.writer.write(step, values),
            best=saved["best"] if saved else None,
        )
        if saved:
            self.actions.check_unfinished(self.start, path)
            logger.info("Resuming %s after %d steps.", path, self.start)
        if settled.MODEL.CHECKPOINT_ACTIVATIONS:
            checkpoint_activations(model)
        if settled.MODEL.COMPILE:
            model.compile()  # in place: the names of the weights stay

    @staticmethod
    def _metrics(results: dict[str, Any]) -> dict[str, dict[str, float]]:
        return {TASK: {k: v for k, v in results.items() if k != "per_class"}} if results else {}

    def train(self, log: RunLog) -> dict[str, Any]:
        cfg, actions, start = self.cfg, self.actions, self.start
        max_iter = cfg.SOLVER.MAX_ITER
        if comm.is_main_process():
            log.write_to(cfg.OUTPUT_DIR)
            write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", self.config)
            evaluated = not actions.evaluation_pending(start)
            self.writer = Writers(cfg.WRITERS, cfg.OUTPUT_DIR, start=start, evaluated=evaluated)
        logger.info(
            "%s: %.2f M parameters, %d classes; %d images to train on, %d steps of %d (%.2f an epoch).",
            cfg.MODEL.NAME, sum(p.numel() for p in self.model.parameters()) / 1e6, cfg.MODEL.NUM_CLASSES,
            self.state.images, max_iter, cfg.SOLVER.IMS_PER_BATCH, self.state.images / cfg.SOLVER.IMS_PER_BATCH,
        )  # fmt: skip
        try:
            if not actions.evaluate_if_due(start) and start < max_iter:
                with self._stop.deferred():
                    train(
                        wrap_distributed(self.objective),
                        iter(self.loader),
                        self.state.optimizer,
                        self.rate,
                        start=start,
                        max_iter=max_iter,
                        seed=self.state.seed,
                        actions=actions,
                        progress=Progress(
                            start=start, max_iter=max_iter, writer=self.writer, images=cfg.SOLVER.IMS_PER_BATCH
                        ),
                        accumulate=cfg.SOLVER.ACCUMULATE,
                        precision=self.state.precision,
                        clip=parts.gradient_clip(cfg, self.model),
                        ema=self.state.ema,
                        read_every_step=cfg.MODEL.DEVICE == "cpu",
                        stop=self._stop,
                        skipped=self.state.skipped,
                    )
        finally:
            if self.writer is not None:
                self.writer.close()
        comm.synchronize()
        return actions.last_metrics.get(TASK, {})


def categories(images: ClassificationDataset) -> list[dict[str, Any]]:
    """`[{"id": ..., "name": ...}, ...]` in the order of the classes, as a checkpoint keeps them."""
    return [{"id": number, "name": name} for number, name in enumerate(images.class_names)]


def _log_setup(cfg: CfgNode) -> torch.device:
    logger.info(
        "Pretraining (se_det %s, PyTorch %s), %d process(es).", __version__, torch.__version__, comm.get_world_size()
    )
    device = parts.resolve_device(cfg)
    parts.set_backend_flags(cfg)
    return device


def _data(cfg: CfgNode) -> tuple[ClassificationDataset, ClassificationDataset | None]:
    """The images to train and to evaluate on; sets MODEL.NUM_CLASSES."""
    classes, number = read_class_names(cfg.DATASETS.CLASSES), cfg.MODEL.NUM_CLASSES
    images = open_image_dataset(cfg.DATASETS.TRAIN, root=cfg.DATASETS.TRAIN_ROOT, classes=classes, num_classes=number)
    if cfg.MODEL.NUM_CLASSES not in (0, len(images.class_names)):
        raise DataError(
            f"{images.source} has {len(images.class_names)} classes, and MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}."
        )
    empty = [name for name, count in zip(images.class_names, images.counts().tolist()) if not count]
    if empty:
        logger.warning("%d classes have no image to train on: %s.", len(empty), ", ".join(empty[:8]))
    cfg.MODEL.NUM_CLASSES = len(images.class_names)
    if not cfg.DATASETS.TEST:
        logger.warning("There is no data to evaluate on (--test_data_path, DATASETS.TEST): nothing is evaluated.")
        return images, None
    test = open_image_dataset(
        cfg.DATASETS.TEST, root=cfg.DATASETS.TEST_ROOT, classes=images.class_names, num_classes=len(images.class_names)
    )
    return images, test


def _to_device(cfg: CfgNode, model: nn.Module, device: torch.device) -> nn.Module:
    layout = torch.channels_last if cfg.MODEL.CHANNELS_LAST else torch.contiguous_format
    return model.to(device, memory_format=layout)


def _saved_run(cfg: CfgNode, images: ClassificationDataset, checkpoint: str | None) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to resume, checked; read by the first process, as other machines may not have its folder."""
    found = None
    if comm.is_main_process():
        found = (Path(checkpoint), load_checkpoint(checkpoint)) if checkpoint else Checkpointer(cfg.OUTPUT_DIR).latest()
        path, saved = found
        check_engine(saved, path)
        if "architecture" not in saved:
            raise CheckpointError(
                f"{path} is not of a pretraining run, but of a detector's: resume it with the detector."
            )
        check_resumable(saved, cfg, categories(images), path, MUTABLE_KEYS)
    return comm.broadcast_object(found)


def _weights_of(saved: dict[str, Any]) -> str:
    """The MODEL.WEIGHTS that the run started with: they decided how fast its layers learn."""
    import yaml

    return str(yaml.safe_load(saved["config"])["MODEL"]["WEIGHTS"])
