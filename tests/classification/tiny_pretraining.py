"""A pretraining run small enough for a test.

As a script, `tiny_pretraining.py DATA FOLDER [resume] [KEY VALUE ...]`, it is a run that a test can kill: with KILL_AT
it ends itself by SIGKILL, and with TERMINATE_AT it gets a SIGTERM, in the middle of that step.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from picture_sets import add_tiny_host

from se_det.classification.defaults import load_recipe
from se_det.classification.run import run_pretraining
from se_det.training import loop
from se_det.training.launch import launch

STEPS = 14
BATCH = 6


def recipe(data: Path, folder: Path, *overrides: Any):
    """Everything that a run has to keep: mixing, momentum, averages, accumulation, RandAugment, sizes."""
    return load_recipe(
        "modern",
        [
            "MODEL.NAME", "se_tiny", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(folder), "SEED", 3,
            "DATASETS.TRAIN", str(data / "train"), "DATASETS.TEST", str(data / "val"), "DATALOADER.NUM_WORKERS", 0,
            "INPUT.IMAGE_SIZE", 32, "INPUT.SIZES", [[0, 32], [2, 40]], "SOLVER.MAX_ITER", STEPS,
            "SOLVER.IMS_PER_BATCH", BATCH, "SOLVER.ACCUMULATE", 2, "SOLVER.REFERENCE_BATCH", 0,
            "SOLVER.BASE_LR", 0.05, "SOLVER.WARMUP_ITERS", 3,
            "SOLVER.AMP.ENABLED", False, "SOLVER.EMA.DECAY", 0.9, "SOLVER.CHECKPOINT_PERIOD", 4, "TEST.EVAL_PERIOD", 5,
            "TEST.IMS_PER_BATCH", 4, *overrides,
        ],
    )  # fmt: skip


def tiny_pretraining(data: Path, folder: Path, *overrides: Any, **how: Any) -> dict[str, Any]:
    """Train into `folder` on the class folders `train` and `val` in `data`."""
    add_tiny_host()
    torch.set_num_threads(1)
    return run_pretraining(recipe(data, folder, *overrides), **how)


def at_step(number: int, what: signal.Signals) -> None:
    """This process gets a signal in the middle of a step."""
    plain = loop.seed_step

    def seed_step(seed: int, step: int, part: int = 0) -> None:
        plain(seed, step, part)
        if step == number and part == 1:
            os.kill(os.getpid(), what)

    loop.seed_step = seed_step


def main(arguments: Sequence[str]) -> None:
    if "KILL_AT" in os.environ:
        at_step(int(os.environ["KILL_AT"]), signal.SIGKILL)
    if "TERMINATE_AT" in os.environ:
        at_step(int(os.environ["TERMINATE_AT"]), signal.SIGTERM)
    launch(_run, (list(arguments),), device="cpu")


def _run(arguments: list[str]) -> None:
    data, folder, *rest = arguments
    resume = "resume" in rest
    tiny_pretraining(Path(data), Path(folder), *[word for word in rest if word != "resume"], resume=resume)


if __name__ == "__main__":
    main(sys.argv[1:])
