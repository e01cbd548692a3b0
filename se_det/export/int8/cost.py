"""What int8 costs in the figures of an evaluation, and whether they can tell."""

from __future__ import annotations

import math

from ...errors import ExportError
from ...evaluation.figures import FIGURES, Metrics, figures


def loss(before: Metrics, after: Metrics) -> float:
    """The most points that a figure has lost; infinite where one is no number any more."""
    later = figures(after)
    lost = [value - later.get(name, math.nan) for name, value in figures(before).items()]
    return max((math.inf if math.isnan(points) else points for points in lost), default=0.0)


def change(before: Metrics, after: Metrics) -> str:
    """ "bbox AP 40.12 to 39.90", and so on for each figure."""
    later = figures(after)
    return ", ".join(
        f"{name} {value:.2f} to {later.get(name, math.nan):.2f}" for name, value in figures(before).items()
    )


def check_judges(before: Metrics, allowed: float, data: str) -> None:
    """Refuse float32 figures that could not tell what int8 costs.

    Args:
        allowed: points that a figure may lose.
        data: what a sentence calls the data.

    Raises:
        ExportError: there is none, or one is no number or at most `allowed`.
    """
    found = figures(before)
    if not found:
        raise ExportError(
            f"What int8 costs cannot be judged: the evaluation gives {', '.join(before) or 'nothing'}, without any of "
            f"{', '.join(FIGURES)}. Choose other TEST.EVALUATORS."
        )
    for name, value in found.items():
        if not value > allowed:
            raise ExportError(
                f"What int8 costs cannot be judged: {name} of the float32 network is {value:.2f} on {data}, not more "
                f"than the {allowed:g} points that may be lost (--max-loss). Give annotated images of what it was "
                "trained for (--val-json, --val-images), or train it further."
            )
