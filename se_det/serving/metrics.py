"""Counts and times as Prometheus reads them (its text format, version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """How many values were at most each bound, their number and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        """Its samples."""
        total, lines = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self.sum:.6f}", f"{name}_count {total}"]


class Metrics:
    """What a server has done; used in the event loop alone.

    Args:
        waiting: how many requests are accepted and not answered yet.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._waiting = waiting
        self.responses: Counter[int] = Counter()
        self.detections = 0
        self.request_seconds = Histogram(SECONDS)
        self.model_seconds = Histogram(SECONDS)
        self.batch_size = Histogram(BATCHES)

    def add_batch(self, count: int, seconds: float) -> None:
        """The model worked on so many images for so long."""
        self.batch_size.add(count)
        self.model_seconds.add(seconds)

    def text(self) -> str:
        """All of it."""
        responses = [f'se_det_responses_total{{status="{s}"}} {n}' for s, n in sorted(self.responses.items())]
        families = [
            ("se_det_responses_total", "counter", "Answers to images, by HTTP status.", responses),
            ("se_det_waiting", "gauge", "Requests accepted and not answered yet.",
             [f"se_det_waiting {self._waiting()}"]),
            ("se_det_detections_total", "counter", "Detections in answers.",
             [f"se_det_detections_total {self.detections}"]),
            ("se_det_request_seconds", "histogram", "From a request's headers to its answer, of those detected in.",
             self.request_seconds.lines("se_det_request_seconds")),
            ("se_det_model_seconds", "histogram", "The model's work on a batch.",
             self.model_seconds.lines("se_det_model_seconds")),
            ("se_det_batch_size", "histogram", "Images in a batch.", self.batch_size.lines("se_det_batch_size")),
        ]  # fmt: skip
        lines = []
        for name, kind, purpose, samples in families:
            lines += [f"# HELP {name} {purpose}", f"# TYPE {name} {kind}", *samples]
        return "\n".join(lines) + "\n"
