"""A detector's run that a test can kill: `killed_run.py FOLDER DEVICE [resume]`, by SIGKILL in step KILL_AT.

On a GPU with deterministic algorithms, where PyTorch has them.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from se_det.training import loop
from tests.training.small_detector import draw, train_and_evaluate

STEPS = 8


def main(folder: str, device: str, *words: str) -> None:
    if "KILL_AT" in os.environ:
        plain, at = loop.seed_step, int(os.environ["KILL_AT"])

        def seed_step(seed: int, step: int, part: int = 0) -> None:
            plain(seed, step, part)
            if step == at and part == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        loop.seed_step = seed_step
    torch.use_deterministic_algorithms(True, warn_only=True)
    data = Path(folder).parent / "data"
    if not data.exists():
        draw(data, 6)
    images = ["DATASETS.TRAIN_JSON", f"{data}/data.json", "DATASETS.TRAIN_IMAGES", f"{data}/images"]
    train_and_evaluate(
        folder, "MODEL.DEVICE", device, *images, "SOLVER.MAX_ITER", STEPS, "SOLVER.ACCUMULATE", 2,
        "SOLVER.EMA.DECAY", 0.9, "SOLVER.CHECKPOINT_PERIOD", 3, "DATASETS.TEST", (), resume="resume" in words,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
