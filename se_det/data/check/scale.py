"""Whether objects are still seen in images that are resized as training usually does."""

from __future__ import annotations

import numpy as np

from ..transforms import short_side_size
from .annotation_entries import AnnotationTable
from .findings import Findings
from .geometry import Conventions, as_boxes
from .image_entries import ImageTable

SHORT_SIDE, MAX_SIZE = 800, 1333  # px: INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST by default
SMALLEST = 11  # px: the recipe wants nine tenths of the objects to be larger
SHARE = 0.1


def check_scale(images: ImageTable, table: AnnotationTable, conventions: Conventions, findings: Findings) -> None:
    """Note that objects become too small where images are made smaller."""
    xywh = as_boxes(table.xywh, conventions.corners)
    owned = (table.owner >= 0) & ~table.crowd & ~conventions.fractions & np.isfinite(xywh).all(axis=1)
    sizes = images.sizes[table.owner[owned]]
    known = np.isfinite(sizes).all(axis=1)
    sizes, sides = sizes[known], xywh[owned][known][:, 2:].clip(min=0)
    if not len(sizes):
        return
    unique, which = np.unique(sizes, axis=0, return_inverse=True)
    after = np.array([short_side_size(*size, SHORT_SIDE, MAX_SIZE) for size in unique.astype(int).tolist()])
    factor = (after / unique).min(axis=1).clip(max=1)[which.reshape(-1)]
    size = float(np.quantile(np.sqrt(sides.prod(axis=1)) * factor, SHARE))
    short = float(np.median(sizes.min(axis=1)))
    if size < SMALLEST and short > SHORT_SIDE:
        findings.add(
            "small-for-image",
            f"a tenth of the objects has {size:.1f} px or less when the images, whose shorter side is {short:.0f} px, "
            f"are resized to {SHORT_SIDE} px",
        )
