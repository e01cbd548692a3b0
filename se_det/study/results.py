"""What a study's runs came to: means, spreads, and differences paired by the seed."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..analysis.cost import measure
from ..analysis.detector_cost import measure_detector
from ..classification.build import build_classifier
from ..classification.defaults import get_pretrain_cfg
from ..classification.preprocessing import preprocessing
from ..config import get_cfg
from ..config.loading import load_saved_config
from ..errors import CheckpointError, SeDetError
from .plan import Run, Study

RESULT = "result.json"
# Student's t: 97.5 % of the distribution lie below, by degrees of freedom from 1.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
     2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A mean, and how far from it the true one may be with 95 % confidence; None for a single value."""

    mean: float
    half_width: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the values' sign is told from chance."""
        return self.half_width is not None and abs(self.mean) > self.half_width


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: of the row.
        values: the metric by seed.
        difference: to the first row, over the seeds that both have; None for the first and without such seeds.
        step_seconds, memory_mib: medians over the runs.
        parameters, multiply_adds: of the network, the latter of one image; None where they could not be counted.
        missing: the seeds that are not done.
        also: the means of `Study.also`, of those that its runs have.
    """

    name: str
    values: dict[int, float]
    difference: Interval | None
    step_seconds: float | None
    memory_mib: float | None
    parameters: int | None
    multiply_adds: int | None
    missing: tuple[int, ...]
    also: dict[str, float]

    @property
    def mean(self) -> float | None:
        """Of the values; None without any."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def spread(self) -> float | None:
        """The sample's standard deviation; None below two values."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


def confidence_interval(values: Sequence[float]) -> Interval:
    """The mean of values and its 95 % confidence interval by Student's t, as they are few."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None)
    degrees = len(values) - 1
    # Above the table by the expansion of t around the normal distribution's 1.95996 (Abramowitz, Stegun, 26.7.5).
    t = T[degrees - 1] if degrees <= len(T) else 1.95996 + 2.37227 / degrees + 2.8225 / degrees**2
    return Interval(mean, t * statistics.stdev(values) / math.sqrt(len(values)))


def read_results(study: Study, output: str | Path) -> list[Row]:
    """The rows of a study, as far as its runs are done.

    Raises:
        CheckpointError: a result cannot be read.
    """
    found = {run: result for run in study.runs() if (result := _read(run, output)) is not None}
    first = next(iter(study.rows))
    rows = []
    for name in study.rows:
        of_row = {run.seed: result for run, result in found.items() if run.row == name}
        values = {seed: float(result["metric"]) for seed, result in of_row.items()}
        base = {run.seed: float(result["metric"]) for run, result in found.items() if run.row == first}
        common = sorted(values.keys() & base.keys())
        difference = None
        if name != first and common:
            difference = confidence_interval([values[seed] - base[seed] for seed in common])
        rows.append(
            Row(
                name=name,
                values=values,
                difference=difference,
                step_seconds=_median(of_row, "step_seconds"),
                memory_mib=_median(of_row, "memory_mib"),
                parameters=_first(of_row, "parameters"),
                multiply_adds=_first(of_row, "multiply_adds"),
                also=_means(of_row, study.also),
                missing=tuple(seed for seed in study.seeds if seed not in values),
            )
        )
    return rows


def read_history(folder: Path) -> dict[str, Any]:
    """Steps and the median time of one, from a run's metrics.json."""
    seconds, steps = [], 0
    try:
        for line in (folder / "metrics.json").read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            steps = max(steps, values.get("iteration", 0))
            if values.get("time") is not None:
                seconds.append(values["time"])
    except (OSError, ValueError):  # WRITERS without json
        return {}
    return {"steps": steps, **({"step_seconds": statistics.median(seconds)} if seconds else {})}


def measure_cost(kind: str, folder: Path) -> dict[str, int]:
    """Parameters and multiply-adds of a run's network, of one image as it is evaluated (a detector's: 4 to 3)."""
    defaults = get_cfg() if kind == "train" else get_pretrain_cfg()
    path = folder / "config.yaml"
    cfg = load_saved_config(path.read_text(encoding="utf-8"), source=str(path), defaults=defaults)
    try:
        if kind == "pretrain":
            side = preprocessing(cfg).size
            costs = [measure(build_classifier(cfg), (3, side, side))]
        else:
            short = cfg.INPUT.MIN_SIZE_TEST
            costs = [cost for _, cost in measure_detector(cfg, (short, round(short * 4 / 3)))]
    except (SeDetError, AttributeError):  # an architecture whose parts are not known to the counter
        return {}
    return {"parameters": sum(c.parameters for c in costs), "multiply_adds": sum(c.multiply_adds for c in costs)}


def _read(run: Run, output: str | Path) -> dict[str, Any] | None:
    path = run.folder(output) / RESULT
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): remove it, and the run is finished again.") from error


def _median(results: dict[int, dict[str, Any]], name: str) -> float | None:
    values = [result[name] for result in results.values() if result.get(name) is not None]
    return statistics.median(values) if values else None


def _means(results: dict[int, dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Of those metrics that all runs of a row have."""
    of_runs = [run["metrics"] for run in results.values() if "metrics" in run]
    known = [name for name in names if of_runs and all(name in metrics for metrics in of_runs)]
    return {name: statistics.fmean(metrics[name] for metrics in of_runs) for name in known}


def _first(results: dict[int, dict[str, Any]], name: str) -> int | None:
    return next((result[name] for result in results.values() if name in result), None)
