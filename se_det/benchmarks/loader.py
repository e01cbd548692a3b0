"""From image files to training tensors on one core: our two ways of resizing, and Detectron2's mapper."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch

from ..data.coco import read_coco
from ..data.samples import TrainingSamples
from ..data.transforms import RESIZE_METHODS, ResizeAndFlip
from ..errors import DataError
from .alternate import Comparison, alternate

THEIRS = "Detectron2's DatasetMapper"

logger = logging.getLogger(__name__)


def compare_loaders(
    train_json: str, train_images: str, *, short_side: int, max_size: int, masks: bool, count: int, repeat: int
) -> Iterator[Comparison]:
    """Seconds for the samples of `count` images, one thread each way; flips are drawn, so half of the images turn.

    Args:
        train_json, train_images: a COCO file and its folder of images.
        short_side, max_size: px, of the resized images.
        masks: with polygons.

    Raises:
        DataError: the data cannot be read, or no image has an annotation.
    """
    dataset = read_coco(train_json, train_images, drop_empty_boxes=True).without_empty()
    count = min(count, len(dataset))
    if not count:
        raise DataError(f"{train_json} has no image with annotations: give a file to train on.")

    def ours(method: str) -> Callable[[int], dict[str, Any]]:
        augmentation = ResizeAndFlip(short_sides=(short_side,), max_size=max_size, method=method)
        samples = TrainingSamples([dataset], augmentation=augmentation, seed=0, format="BGR", masks=masks)
        return lambda i: samples[(i, i)]

    ways = {f"INPUT.RESIZE {method}": ours(method) for method in RESIZE_METHODS}
    _log_difference(*ways.values(), count)
    try:
        from ..integrations.detectron2_mapper import mapped_samples
    except ImportError:
        logger.info("Detectron2 is not installed: nothing to compare with.")
    else:
        available, ways[THEIRS] = mapped_samples(dataset, short_side=short_side, max_size=max_size, masks=masks)
        count = min(count, available)
    with _one_thread():
        seconds = alternate({name: _all(way, count) for name, way in ways.items()}, repeat=repeat)
    yield Comparison(
        f"samples of {count} images, short side {short_side} px, {'with' if masks else 'without'} masks", seconds,
        baseline=THEIRS if THEIRS in ways else next(iter(ways)), amount=count,
    )  # fmt: skip


def _all(way: Callable[[int], Any], count: int) -> Callable[[], None]:
    def run() -> None:
        for i in range(count):
            way(i)

    return run


def _log_difference(one: Callable[[int], dict], other: Callable[[int], dict], count: int) -> None:
    """How far the pixels of the two ways are apart."""
    levels = np.zeros(256, np.int64)
    for i in range(count):
        apart = one(i)["image"].short() - other(i)["image"].short()
        levels += np.bincount(apart.abs().flatten().numpy(), minlength=256)
    logger.info(
        "pil and fast differ in %.3f %% of %d values, by %d grey levels at most.",
        100 * levels[1:].sum() / levels.sum(), levels.sum(), np.flatnonzero(levels).max(),
    )  # fmt: skip


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
