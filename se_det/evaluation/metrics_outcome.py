"""What an evaluation came to that has nothing but numbers, for a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricsOutcome:
    """Numbers by task and name, and by whose rules they were computed."""

    title: str
    metrics: Mapping[str, Mapping[str, float]]
