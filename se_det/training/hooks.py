"""What happens between steps: checkpoints, evaluations, the best one kept, the early stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from .. import comm
from ..errors import CheckpointError, ConfigError
from .checkpoint import BEST, FINAL, Checkpointer, step_name

logger = logging.getLogger(__name__)

Metrics = Mapping[str, Mapping[str, float]]


class PeriodicActions:
    """Called on every process after a step at which anything is `due`; says when to stop.

    A checkpoint due is written before the evaluation due at the same step, so that a failing evaluation costs no
    training; `best["evaluated"]` tells a resumed run whether the evaluation is still owed.

    Args:
        checkpointer: of the run's folder.
        snapshot: `snapshot(step)` is what a checkpoint holds after `step` steps, besides `best`.
        weights: `weights(step)` is what model_best.pth holds besides `best`.
        findings: what the evaluation found that a checkpoint of the weights evaluated keeps beside them; asked on the
            first process after each evaluation. A checkpoint that was written before has none.
        refine: `refine(step)` brings the model after `step` steps into the state in which it is evaluated, before each
            evaluation (at its steps too where there is none) and the checkpoint with it.
        max_iter: steps of the whole run; model_final.pth is written at the end, early or not.
        checkpoint_period: steps between checkpoints.
        evaluate: returns the metrics on the first process, `{}` elsewhere; None never evaluates.
        eval_period: steps between evaluations; 0 only at the end.
        best_metric: "task/metric" that is to be as high as it can; "" is the AP of the first task
            that has one, else the first metric.
        early_stop: stop after so many evaluations without a better one; 0 never does. One whose metric is not finite,
            as there is nothing in the data to measure it on, is not counted.
        on_metrics: given the step and the metrics, flat as "task/metric", on the first process.
        best: of the checkpoint resumed.
    """

    def __init__(
        self,
        *,
        checkpointer: Checkpointer,
        snapshot: Callable[[int], dict[str, Any]],
        weights: Callable[[int], dict[str, Any]],
        findings: Callable[[], dict[str, Any]] | None = None,
        refine: Callable[[int], None] | None = None,
        max_iter: int,
        checkpoint_period: int,
        evaluate: Callable[[], Metrics] | None = None,
        eval_period: int = 0,
        best_metric: str = "",
        early_stop: int = 0,
        on_metrics: Callable[[int, dict[str, float]], None] | None = None,
        best: Mapping[str, Any] | None = None,
    ) -> None:
        self._checkpointer, self._snapshot, self._weights = checkpointer, snapshot, weights
        self._max_iter, self._checkpoint_period = max_iter, checkpoint_period
        self._evaluate, self._eval_period = evaluate, eval_period
        self._best_metric, self._early_stop = best_metric, early_stop
        self._findings = findings
        self._refine, self._refined = refine, -1
        self._found: tuple[int, dict[str, Any]] = (-1, {})  # after which step, and what
        self._on_metrics = on_metrics
        self._told = False  # of a metric that is not finite
        self._saved = -1  # the steps of the last checkpoint of this process
        self.best: dict[str, Any] = {
            "metric": best_metric, "value": None, "step": 0, "without_better": 0, "evaluated": 0, "stopped": False
        }  # fmt: skip
        self.best.update(best or {})
        self.last_metrics: dict[str, dict[str, float]] = {}

    def due(self, step: int) -> bool:
        """Whether anything is to be done after `step` steps."""
        refining = self._refine is not None and self._evaluation_due(step)
        return self._checkpoint_pending(step) or self.evaluation_pending(step) or refining

    def __call__(self, step: int) -> bool:
        """What is due after `step` steps is done; True when the run is over."""
        final = step >= self._max_iter
        self._refine_if_due(step)
        if self._checkpoint_pending(step):
            self._save(FINAL if final else step_name(step), step)
        return self.evaluate_if_due(step) or final

    def save(self, step: int) -> None:
        """See to a checkpoint after `step` steps, for a run that has to leave; an evaluation that is due stays owed."""
        if self._saved != step:
            self._save(step_name(step), step)

    def _checkpoint_pending(self, step: int) -> bool:
        return step >= self._max_iter or (self._checkpoint_period > 0 and step % self._checkpoint_period == 0)

    def evaluation_pending(self, step: int) -> bool:
        """Whether the evaluation due after `step` steps has not been done."""
        due = step > 0 and self._evaluation_due(step)
        return self._evaluate is not None and due and self.best["evaluated"] < step

    def _evaluation_due(self, step: int) -> bool:
        return step == self._max_iter or (self._eval_period > 0 and step % self._eval_period == 0)

    def _refine_if_due(self, step: int) -> None:
        if self._refine is not None and self._evaluation_due(step) and self._refined != step:
            self._refined = step
            self._refine(step)

    def check_unfinished(self, step: int, path: Any) -> None:
        """Refuse to resume a run that has nothing left to do after `step` steps.

        Raises:
            CheckpointError: naming the checkpoint and what to change to go on.
        """
        if self.best["stopped"] and 0 < self._early_stop <= self.best["without_better"]:
            raise CheckpointError(
                f"The run of {path} stopped early after {step} steps, as {self.best['without_better']} evaluations "
                "brought nothing better: there is nothing to resume. Raise TEST.EARLY_STOP to go on."
            )
        if step > self._max_iter or (step == self._max_iter and not self.evaluation_pending(step)):
            raise CheckpointError(
                f"The run of {path} is finished: {step} steps are done and SOLVER.MAX_ITER is {self._max_iter}, so "
                "there is nothing to resume. Raise SOLVER.MAX_ITER to go on."
            )
        self.best["stopped"] = False

    def evaluate_if_due(self, step: int) -> bool:
        """Evaluate when that is due and not done; True when the run ends by it."""
        if not self.evaluation_pending(step):
            return False
        self._refine_if_due(step)  # of a run resumed here, which had to leave before
        metrics = self._evaluate()
        if comm.is_main_process():
            self.last_metrics = {task: dict(values) for task, values in metrics.items()}
            self._found = (step, self._findings() if self._findings else {})
            self._update_best(step, metrics)
        self.best = comm.broadcast_object(self.best)
        if self.best["stopped"]:
            logger.info(
                "Stopping after %d steps: no better %s in %d evaluations (TEST.EARLY_STOP).",
                step, self.best["metric"], self.best["without_better"],
            )  # fmt: skip
        if self.best["stopped"] or step >= self._max_iter:
            self._save(FINAL, step)  # again when it was written before the evaluation: now it says it was evaluated
        return self.best["stopped"]

    def _update_best(self, step: int, metrics: Metrics) -> None:
        flat = {f"{task}/{name}": float(value) for task, values in metrics.items() for name, value in values.items()}
        if self._on_metrics is not None:
            self._on_metrics(step, flat)
        metric = self._best_metric or next((name for name in flat if name.endswith("/AP")), next(iter(flat), ""))
        if metric not in flat:
            raise ConfigError(
                f"TEST.BEST_METRIC '{metric}' is not a metric of this evaluation, which has "
                f"{', '.join(list(flat)[:12])}."
            )
        value, before = flat[metric], self.best["value"]
        self.best.update(metric=metric, evaluated=step)
        if not math.isfinite(value):
            self._warn_not_a_number(metric, value, step)
        elif before is None or value > before:
            self.best.update(value=value, step=step, without_better=0)
            self._checkpointer.save(BEST, self._complete(self._weights(step), step), mark_last=False)
            logger.info("%s %.3f after %d steps is the best so far: kept as %s.pth.", metric, value, step, BEST)
        else:
            self.best["without_better"] += 1
        self.best["stopped"] = 0 < self._early_stop <= self.best["without_better"]

    def _warn_not_a_number(self, metric: str, value: float, step: int) -> None:
        if self._told:
            return
        self._told = True
        logger.warning(
            "%s is %s after %d steps, mostly as the data to evaluate on hold nothing to measure it on: where it is, no "
            "checkpoint is kept as the best%s.",
            metric, value, step, ", and the evaluation does not count for TEST.EARLY_STOP" if self._early_stop else "",
        )  # fmt: skip

    def _save(self, name: str, step: int) -> None:
        again, self._saved = self._saved == step, step
        if comm.is_main_process():
            path = self._checkpointer.save(name, self._complete(self._snapshot(step), step))
            if not again:
                logger.info("Saved %s.", path)

    def _complete(self, state: dict[str, Any], step: int) -> dict[str, Any]:
        """A checkpoint of the weights after `step` steps, with what an evaluation of these weights found."""
        found_after, found = self._found
        return {**state, **(found if found_after == step else {}), "best": dict(self.best)}
