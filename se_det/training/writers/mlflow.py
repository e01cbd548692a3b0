"""The writer `mlflow`. Where it writes to is said by MLflow's own variables: MLFLOW_TRACKING_URI and the like."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .registry import WRITERS, is_finite
from .service import Service, no_service

EXPERIMENT = "se_det"
AT_ONCE = 100  # parameters of a request
LONGEST = 500  # characters of a parameter's value, the least that any version takes
NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")


@WRITERS.register(name="mlflow")
class MlflowWriter:
    """Metrics by step, the config's keys as parameters and the file itself, pictures of detections, and the report.

    A resumed run goes on in the same run of MLflow. What was written after the step resumed from, by a run that was
    killed later, comes again with the same numbers.

    Args:
        folder, start, evaluated: see `Writer`.

    Raises:
        ConfigError: the package is not installed, or MLflow's server or store cannot be written to.
    """

    def __init__(self, folder: str | Path, *, start: int = 0, evaluated: bool = True) -> None:
        folder = Path(folder)
        self._service = Service("MLflow", folder)
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient()
            self._metric = Metric
            self._run = self._begin(folder, self._service.known_run(start), Param)
        except Exception as error:
            raise no_service("a run of MLflow", "mlflow", error) from error
        self._service.remember(self._run)

    def _begin(self, folder: Path, known: str | None, param: Any) -> str:
        if known is not None:
            self._client.update_run(known, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            experiment = self._client.get_experiment_by_name(name)
            number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
            known = self._client.create_run(number, run_name=folder.absolute().name).info.run_id
            params = [param(key, str(value)[:LONGEST]) for key, value in _flat(self._service.config())]
            for first in range(0, len(params), AT_ONCE):  # they cannot be changed later: a resumed run's are as begun
                self._client.log_batch(known, params=params[first : first + AT_ONCE])
        if (folder / "config.yaml").exists():
            self._client.log_artifact(known, str(folder / "config.yaml"))
        return known

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` as measured after `step` steps; one that is not finite is left out."""
        now = int(time.time() * 1000)
        metrics = [
            self._metric(NOT_IN_NAMES.sub("_", name), float(value), now, step)
            for name, value in values.items()
            if is_finite(value)
        ]
        self._service.attempt(lambda: self._client.log_batch(self._run, metrics=metrics))

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Write a picture of detections."""
        image, key = np.ascontiguousarray(pixels[:, :, ::-1]), NOT_IN_NAMES.sub("_", f"detections/{name}")
        self._service.attempt(lambda: self._client.log_image(self._run, image, key=key, step=step))

    def file(self, path: Path) -> None:
        """Keep a file as an artifact."""
        self._service.attempt(lambda: self._client.log_artifact(self._run, str(path)))

    def close(self) -> None:
        """Say whether the run has failed."""
        status = "FAILED" if sys.exc_info()[0] is not None else "FINISHED"
        self._service.attempt(lambda: self._client.set_terminated(self._run, status))
        self._service.close()


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found
