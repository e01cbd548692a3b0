"""The writer `wandb`: Weights & Biases. Its own variables say how: WANDB_PROJECT, WANDB_MODE, ..."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .registry import WRITERS, is_finite
from .service import Service, no_service

PROJECT = "se_det"
STEP = "iteration"


@WRITERS.register(name="wandb")
class WandbWriter:
    """Metrics over `iteration`, the config, pictures of detections, and the report as an artifact of type `report`.

    A resumed run goes on in the same run of Weights & Biases. What was written after the step resumed from, by a run
    that was killed later, comes again with the same numbers.

    Args:
        folder, start, evaluated: see `Writer`.

    Raises:
        ConfigError: the package is not installed, or Weights & Biases does not take the run: no key, no network.
    """

    def __init__(self, folder: str | Path, *, start: int = 0, evaluated: bool = True) -> None:
        folder = Path(folder)
        self._service = Service("Wandb", folder)
        try:
            import wandb

            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=os.environ.get("WANDB_NAME", folder.absolute().name),
                dir=str(folder),
                id=self._service.known_run(start),
                resume="allow",
                config=self._service.config(),
                settings=wandb.Settings(console="off"),  # log.txt has it
            )
        except Exception as error:
            raise no_service("a run of Weights & Biases", "wandb", error) from error
        self._image, self._artifact = wandb.Image, wandb.Artifact
        self._service.remember(self._run.id)
        # Its own steps cannot be gone back to, which a resumed run does.
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` as measured after `step` steps; one that is not finite is left out."""
        finite = {name: value for name, value in values.items() if is_finite(value)}
        self._service.attempt(lambda: self._run.log({STEP: step, **finite}))

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Write a picture of detections."""
        image = np.ascontiguousarray(pixels[:, :, ::-1])
        self._service.attempt(lambda: self._run.log({STEP: step, f"detections/{name}": self._image(image)}))

    def file(self, path: Path) -> None:
        """Keep a file as an artifact, of its name's type: report.html is a `report`."""

        def keep() -> None:
            artifact = self._artifact(f"{path.stem}-{self._run.id}", type=path.stem)
            artifact.add_file(str(path))
            self._run.log_artifact(artifact)

        self._service.attempt(keep)

    def close(self) -> None:
        """Wait until everything has been sent."""
        failed = sys.exc_info()[0] is not None
        self._service.attempt(lambda: self._run.finish(exit_code=int(failed)))
        self._service.close()
