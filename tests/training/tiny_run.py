"""A run small enough for a test: a model with every kind of state, put together as run.py does it.

As a script, `tiny_run.py FOLDER [resume]`, it is a run that a test can kill.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from se_det import comm
from se_det.training.checkpoint import Checkpointer
from se_det.training.distributed import broadcast_statistics, wrap_distributed
from se_det.training.ema import EMA
from se_det.training.hooks import PeriodicActions
from se_det.training.loop import train
from se_det.training.optimizer import build_optimizer, clip_gradients
from se_det.training.output_folder import prepare_folder
from se_det.training.precision import Precision
from se_det.training.progress import Progress
from se_det.training.schedule import LearningRate
from se_det.training.state import RunState
from se_det.training.writers import Writers

SEED = 7
MAX_ITER = 24
CATEGORIES = [{"id": 3, "name": "cup"}, {"id": 9, "name": "owl"}]


class TinyDetector(nn.Module):
    """Samples to two losses, with dropout, noise and batch statistics."""

    def __init__(self, *, dropout: float = 0.3, noise: float = 0.01, norm: bool = True) -> None:
        super().__init__()
        self.noise = noise
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(8, 2)
        self.side = nn.Linear(8, 1)

    def forward(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        images = torch.stack([s["image"] for s in samples]).to(self.out.weight.dtype)
        target = torch.stack([s["target"] for s in samples]).to(self.out.weight.dtype)
        x = self.dropout(torch.relu(self.norm(self.conv(images))).mean((2, 3)))
        noise = torch.rand_like(target) * self.noise
        return {
            "loss_cls": (self.out(x) - target - noise).square().sum(1).mean(),
            "loss_side": self.side(x).square().mean(),
        }


def sample(position: int) -> dict[str, Any]:
    """The sample at a position of the run: a function of nothing else."""
    generator = torch.Generator().manual_seed(1000 + position)
    image = torch.rand(3, 6, 6, generator=generator, dtype=torch.float64)
    return {"image": image, "target": image.mean((1, 2))[:2], "image_id": f"img{position}"}


def batches(start: int, *, images: int = 4, accumulate: int = 1, kill_at: int | None = None) -> Iterator[list]:
    """Micro-batches of this process, from step `start` on; killed while step `kill_at` is loaded."""
    rank, world, step = comm.get_rank(), comm.get_world_size(), start
    size = images // (world * accumulate)
    torch.rand(())  # as DataLoader does when it starts: no random number of a step may depend on it
    while True:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        for part in range(accumulate):
            first = step * images + (part * world + rank) * size
            yield [sample(i) for i in range(first, first + size)]
        step += 1


def tiny_run(
    folder: str | os.PathLike,
    *,
    resume: bool = False,
    max_iter: int = MAX_ITER,
    kill_at: int | None = None,
    fp16: bool = False,
    evaluate: bool = True,
    checkpoint_period: int = 5,
    early_stop: int = 0,
) -> PeriodicActions:
    """Train the tiny model into `folder`."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = TinyDetector()
    rate = LearningRate(base_lr=0.1, max_iter=MAX_ITER, steps=(15,), warmup_iters=5)
    run = RunState(
        model=model,
        optimizer=build_optimizer(model, base_lr=0.1, weight_decay=1e-2, weight_decay_norm=0.0, fused=not fp16),
        precision=Precision(enabled=fp16, dtype="float16", device_type="cpu"),
        ema=EMA(model, decay=0.9),
        seed=SEED,
        config="SEED: 7\n",
        categories=CATEGORIES,
        images=1000,
    )
    start, best = 0, None
    if resume:
        path, saved = Checkpointer(folder).latest()
        start, best = run.restore(saved, path), saved["best"]

    def evaluation() -> dict[str, dict[str, float]]:
        # Anything that the weights decide and that is not always better than before.
        with run.ema.applied():
            return {"bbox": {"AP": model.out.weight.sum().item() * 1e4 % 100, "AP50": float("nan")}}

    actions = PeriodicActions(
        checkpointer=Checkpointer(folder),
        snapshot=run.snapshot,
        weights=run.weights,
        max_iter=max_iter,
        checkpoint_period=checkpoint_period,
        evaluate=evaluation if evaluate else None,
        eval_period=4,
        early_stop=early_stop,
        on_metrics=lambda step, values: writer.write(step, values),
        best=best,
    )
    if resume:
        actions.check_unfinished(start, folder)
    prepare_folder(folder)
    writer = Writers(["json", "tensorboard"], folder, start=start, evaluated=not actions.evaluation_pending(start))
    try:
        if not actions.evaluate_if_due(start) and start < max_iter:
            train(
                model,
                batches(start, accumulate=2, kill_at=kill_at),
                run.optimizer,
                rate,
                start=start,
                max_iter=max_iter,
                seed=SEED,
                actions=actions,
                progress=Progress(start=start, max_iter=max_iter, writer=writer),
                accumulate=2,
                precision=run.precision,
                clip=lambda: clip_gradients(model.parameters(), clip_type="full_model", clip_value=0.5),
                ema=run.ema,
            )
    finally:
        writer.close()
    return actions


class NoMilestones:
    """Nothing is ever due."""

    def due(self, step: int) -> bool:
        return False


def train_together(result: str, dtype: torch.dtype, accumulate: int, steps: int) -> None:
    """Train in float64 without randomness on all processes; the first writes the weights to `result`."""
    torch.set_num_threads(1)
    torch.manual_seed(comm.get_rank())  # the wrapper hands out the first process's weights
    model = TinyDetector(dropout=0.0, noise=0.0, norm=False).to(dtype)
    optimizer = build_optimizer(model, base_lr=0.2, weight_decay=1e-2)
    rate = LearningRate(base_lr=0.2, max_iter=steps, warmup_iters=2)
    train(
        wrap_distributed(model),
        batches(0, images=4, accumulate=accumulate),
        optimizer,
        rate,
        max_iter=steps,
        seed=SEED,
        actions=NoMilestones(),
        progress=Progress(start=0, max_iter=steps),
        accumulate=accumulate,
    )
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(5.0 + comm.get_rank())
    broadcast_statistics(norm)
    assert norm.running_mean.tolist() == [5.0, 5.0]
    if comm.is_main_process():
        torch.save(model.state_dict(), result)


if __name__ == "__main__":
    tiny_run(sys.argv[1], resume="resume" in sys.argv[2:], kill_at=int(os.environ["KILL_AT"]))
