"""Predictions that are numbers."""

from __future__ import annotations

import torch

from ..errors import WeightsError
from ..layers.tracing import is_traced


def finite_rows(*predictions: torch.Tensor) -> torch.Tensor:
    """Which predictions of an image, (n, ...) each, are finite in all of them: booleans (n,).

    Raises:
        WeightsError: none is, though there are some.
    """
    finite = torch.stack([torch.isfinite(values).flatten(1).all(1) for values in predictions]).all(0)
    if not is_traced() and len(finite) and not finite.any():
        raise WeightsError(
            "All boxes of an image are NaN or infinite although the weights are finite: activations overflow in this "
            "precision (TEST.PRECISION, SOLVER.AMP.DTYPE), or the training has diverged. Use TEST.PRECISION float32, "
            "or an earlier checkpoint."
        )
    return finite
