"""What callers hand over as the pixels of an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError


def check_pixels(image: Any, order: str) -> None:
    """Refuse what is not uint8 (height, width, 3) with a pixel at least.

    Args:
        image: what was given for an array.
        order: of the channels, for the sentence.

    Raises:
        DataError: it is something else.
    """
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
            return
        given = f"an array {image.shape} of {image.dtype}"
    else:
        given = "None" if image is None else f"a value of type {type(image).__name__}"
    raise DataError(
        f"An image must be the path of a file, or a NumPy array (height, width, 3) of uint8 in the order {order} with "
        f"no side of 0, got {given}."
    )
