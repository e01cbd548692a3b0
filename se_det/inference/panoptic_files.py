"""What was found at every pixel, as files: COCO's panoptic PNG and JSON, and a PNG of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.pixel_labels import panoptic_pixels
from ..files import atomic_write


def coco_segments(
    infos: Sequence[Mapping[str, Any]], thing_ids: Sequence[int], stuff_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """The infos of `combine_segments` with the data set's own ids of categories.

    Args:
        thing_ids, stuff_ids: of each class of instances and of pixels.
    """
    return [
        {**info, "category_id": int((thing_ids if info["isthing"] else stuff_ids)[info["category_id"]])}
        for info in infos
    ]


def write_panoptic_png(path: Path, segments: np.ndarray) -> None:
    """Write numbers of segments (H, W) as COCO's PNG.

    Raises:
        CheckpointError: the file cannot be written.
    """
    _write_png(path, Image.fromarray(panoptic_pixels(segments)))


def write_label_png(path: Path, labels: np.ndarray) -> None:
    """Write classes uint8 (H, W) as a PNG of one channel.

    Raises:
        CheckpointError: the file cannot be written.
    """
    _write_png(path, Image.fromarray(labels.astype(np.uint8)))


def _write_png(path: Path, image: Image.Image) -> None:
    atomic_write(path, lambda file: image.save(file, format="PNG"))
