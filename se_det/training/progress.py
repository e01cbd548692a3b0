"""What a run tells while it goes on: losses, learning rate, time left, memory."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..system import peak_memory_mib
from .loss_reader import StepLosses
from .writers import Writer

PERIOD = 20  # steps between lines

logger = logging.getLogger(__name__)


class Progress:
    """Times the steps and writes a line every `PERIOD` steps, at the first and at the last.

    Args:
        start: steps done before.
        max_iter: steps of the whole run.
        writer: where the numbers go besides the log; None on all processes but the first.
        images: per step; given, images per second are told too.
    """

    def __init__(self, *, start: int, max_iter: int, writer: Writer | None = None, images: int = 0) -> None:
        self._start, self._max_iter, self._writer, self._images = start, max_iter, writer, images
        self._rows: list[StepLosses] = []
        self._waited = 0.0
        self._lap = time.perf_counter()
        self._spent = 0.0  # in steps, evaluations and checkpoints left out
        self._last_line = start

    def due(self, step: int) -> bool:
        """Whether a line is written after `step` steps."""
        return step % PERIOD == 0 or step in (1, self._max_iter)

    @contextmanager
    def data_time(self) -> Iterator[None]:
        """Time spent inside is time the data took."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside is no step's."""
        begin = time.perf_counter()
        yield
        self._lap += time.perf_counter() - begin

    def add(self, rows: Sequence[StepLosses]) -> None:
        """Take the losses of some steps."""
        self._rows.extend(rows)

    def line(self, step: int) -> None:
        """Log and write what the steps since the last line were: medians, as one batch is much like no other."""
        now = time.perf_counter()
        count = max(step - self._last_line, 1)
        seconds, waited = (now - self._lap) / count, self._waited / count
        self._spent += now - self._lap
        eta = self._spent / max(step - self._start, 1) * (self._max_iter - step)
        rows, self._rows = self._rows, []
        self._lap, self._waited, self._last_line = now, 0.0, step
        if self._writer is None or not rows:
            return
        losses = {name: statistics.median(row.losses[name] for row in rows) for name in rows[-1].losses}
        total = statistics.median(row.total for row in rows)
        speed = {"images/s": self._images / seconds} if self._images else {}
        terms = "  ".join(f"{name}: {value:.4g}" for name, value in losses.items())
        logger.info(
            "eta: %s  iter: %d/%d  total_loss: %.4g  %s  time: %.4f  data_time: %.4f%s  lr: %.5g  max_mem: %.0fM",
            clock(eta), step, self._max_iter, total, terms, seconds, waited,
            "".join(f"  {name}: {value:.1f}" for name, value in speed.items()), rows[-1].lr, most_memory_mib(),
        )  # fmt: skip
        self._writer.write(
            step,
            {
                "total_loss": total,
                **losses,
                "lr": rows[-1].lr,
                "time": seconds,
                "data_time": waited,
                **{name.replace("/", "_per_"): value for name, value in speed.items()},
                "eta_seconds": eta,
                "max_mem_mib": most_memory_mib(),
            },
        )


def clock(seconds: float) -> str:
    """`1 day, 2:03:04`, without the days where there are none."""
    days, rest = divmod(round(seconds), 86400)
    text = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} day{'s' if days > 1 else ''}, {text}" if days else text


def most_memory_mib() -> float:
    """The most this process has held, in MiB: of the GPU's memory where there is one, else of the machine's."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_memory_mib()
