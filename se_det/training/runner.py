"""What every training does around its steps: the folder taken, files opened, evaluations and checkpoints between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from torch import nn

from .. import comm
from ..files import write_text
from . import build
from .checkpoint import FINAL, Checkpointer
from .distributed import wrap_distributed
from .hooks import PeriodicActions
from .loop import train
from .output_folder import OutputFolder
from .preemption import EvaluationStopped, StopRequest
from .progress import Progress
from .resolve import SavedRun
from .run_log import RunLog
from .schedule import LearningRate
from .state import RunState
from .writers import Writers

Metrics = dict[str, dict[str, float]]

logger = logging.getLogger(__name__)


class Runner:
    """A run from its built parts to its last evaluation; a detector's and a classifier's are the same here.

    Args:
        cfg: with SOLVER's keys in steps.
        state: what a checkpoint keeps.
        network: what a step's loss is computed by, not wrapped for several processes.
        loader: the batches from the step on at which the run starts.
        rate: the schedule.
        evaluate: returns the metrics on the first process; None never evaluates.
        refine: see `PeriodicActions`.
        finish: measures once more, on the first process, what the training has come to when it is over.
        findings: what the last evaluation found that a checkpoint of the same weights keeps.
        saved: the run that is resumed, its state restored.
        pictures: names and pictures, uint8 BGR, of what the last evaluation found, for writers that take them.
        report: writes the run's report when it is over, on the first process, and returns its file.
        keep: how many numbered checkpoints stay; None is all.
        stop: asked after every step whether to save and leave.
        images: per step, to tell images per second; 0 does not.

    Raises:
        CheckpointError: the run resumed has nothing left to do.
    """

    def __init__(
        self,
        cfg: CfgNode,
        state: RunState,
        *,
        network: nn.Module,
        loader: Iterable[Any],
        rate: LearningRate,
        evaluate: Callable[[], Metrics] | None,
        stop: StopRequest,
        findings: Callable[[], dict[str, Any]] | None = None,
        refine: Callable[[int], None] | None = None,
        finish: Callable[[], Metrics] | None = None,
        pictures: Callable[[], Iterable[tuple[str, np.ndarray]]] | None = None,
        report: Callable[[], Path] | None = None,
        saved: SavedRun | None = None,
        keep: int | None = None,
        images: int = 0,
    ) -> None:
        self._cfg, self._state, self._network, self._loader = cfg, state, network, loader
        self._rate, self._stop, self._images = rate, stop, images
        self._finish, self._pictures, self._report = finish, pictures, report
        self._start = int(saved.state["iteration"]) if saved else 0
        self._writer: Writers | None = None
        self._actions = PeriodicActions(
            checkpointer=Checkpointer(cfg.OUTPUT_DIR, **({} if keep is None else {"keep": keep})),
            snapshot=state.snapshot,
            weights=state.weights,
            findings=findings,
            refine=refine,
            max_iter=cfg.SOLVER.MAX_ITER,
            checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
            evaluate=evaluate,
            eval_period=cfg.TEST.EVAL_PERIOD,
            best_metric=cfg.TEST.BEST_METRIC,
            early_stop=cfg.TEST.EARLY_STOP,
            on_metrics=self._write_metrics,
            best=saved.state["best"] if saved else None,
        )
        if saved:
            self._actions.check_unfinished(self._start, saved.path)
            logger.info("Resuming %s after %d steps.", saved.path, self._start)

    def run(self, folder: OutputFolder, log: RunLog, *, config: str, summary: str) -> Metrics:
        """Take the folder, make the steps that are left, and return the last evaluation's metrics.

        Args:
            config: what `config.yaml` gets.
            summary: a line about network and data for the log.

        Raises:
            SeDetError: the folder cannot be had, a step failed, or a signal ended the run, saved.
        """
        cfg, actions, start, max_iter = self._cfg, self._actions, self._start, self._cfg.SOLVER.MAX_ITER
        folder.acquire()
        if comm.is_main_process():
            log.write_to(cfg.OUTPUT_DIR)
            write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", config)
            evaluated = not actions.evaluation_pending(start)
            self._writer = Writers(cfg.WRITERS, cfg.OUTPUT_DIR, start=start, evaluated=evaluated)
        logger.info(summary)
        try:
            if not actions.evaluate_if_due(start) and start < max_iter:
                with self._stop.deferred():
                    train(
                        wrap_distributed(self._network, fp16_compression=cfg.SOLVER.FP16_COMPRESSION),
                        iter(self._loader),
                        self._state.optimizer,
                        self._rate,
                        start=start,
                        max_iter=max_iter,
                        seed=self._state.seed,
                        actions=actions,
                        progress=Progress(start=start, max_iter=max_iter, writer=self._writer, images=self._images),
                        accumulate=cfg.SOLVER.ACCUMULATE,
                        precision=self._state.precision,
                        clip=build.gradient_clip(cfg, self._state.model),
                        ema=self._state.ema,
                        read_every_step=cfg.MODEL.DEVICE == "cpu",
                        stop=self._stop,
                        skipped=self._state.skipped,
                    )
            if self._finish is not None:
                actions.last_metrics.update(self._finished(actions.best["evaluated"]))
            if self._report is not None and self._writer is not None:
                self._writer.file(self._report())
        finally:
            if self._writer is not None:
                self._writer.close()
        return actions.last_metrics

    def _write_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._writer.write(step, values)
        if self._pictures is not None and self._writer.takes_pictures:
            for name, pixels in self._pictures():
                self._writer.picture(step, name, pixels)

    def _finished(self, step: int) -> Metrics:
        try:
            with self._stop.deferred():
                metrics = self._finish()
        except EvaluationStopped:
            raise self._stop.error(
                "in the last evaluation, after all steps. The training is saved: --eval-only with MODEL.WEIGHTS "
                f"{Path(self._cfg.OUTPUT_DIR) / FINAL}.pth evaluates it."
            ) from None
        if self._writer is not None:
            flat = {f"{task}/{name}": value for task, values in metrics.items() for name, value in values.items()}
            self._writer.write(step, flat)
        return metrics
