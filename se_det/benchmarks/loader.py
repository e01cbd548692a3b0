"""From image files to training tensors on one core: our two ways of resizing, and Detectron2's mapper."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.augmentations import Augmentation, resize_and_flip
from ..data.augmentations.copy_paste import CopyPaste
from ..data.augmentations.flip import RandomFlip
from ..data.augmentations.large_scale_jitter import LargeScaleJitter
from ..data.coco import read_coco
from ..data.coco_dataset import CocoDataset
from ..data.loader import train_loader
from ..data.samples import TrainDataset
from ..data.transforms import RESIZE_METHODS
from .timing import Comparison, time_alternately

THEIRS = "Detectron2's DatasetMapper"
THEIR_JITTER = "Detectron2's DatasetMapper, large-scale jitter"
IMAGES_COMPARED = 50  # pixel by pixel

logger = logging.getLogger(__name__)


def compare_loaders(
    train_json: str, train_images: str, *, short_side: int, max_size: int, masks: bool, count: int, repeat: int
) -> Iterator[Comparison]:
    """Seconds for `count` training samples, loaded by one worker process of one thread, as a training run gets them.

    Worker processes go ahead by two samples, which those of `count` include in every turn.

    Args:
        train_json, train_images: a COCO file and its folder of images.
        short_side, max_size: px, of the resized images; half of them are flipped.
        masks: with polygons.

    Raises:
        DataError: the data cannot be read, or no image has an annotation.
    """
    dataset = read_coco(train_json, train_images, drop_empty_boxes=True).drop_empty()
    augmentations = {
        method: resize_and_flip(short_sides=(short_side,), max_size=max_size, method=method)
        for method in RESIZE_METHODS
    }
    loaders: dict[str, Iterable[list[dict[str, Any]]]] = {
        f"INPUT.RESIZE {method}": train_loader(
            [dataset], augmentations=augmentation, ims_per_batch=1, seed=0, grouping=False, masks=masks, num_workers=1
        )
        for method, augmentation in augmentations.items()
    }
    _log_difference(dataset, augmentations)
    try:
        from ..integrations.detectron2_mapper import mapped_batches
    except ImportError:
        logger.info("Detectron2 is not installed: nothing to compare with.")
    else:
        loaders[THEIRS] = mapped_batches(dataset, short_side=short_side, max_size=max_size, masks=masks, num_workers=1)
    seconds = time_alternately({name: _some(loader, count) for name, loader in loaders.items()}, repeat=repeat)
    yield Comparison(
        f"{count} samples, short side {short_side} px, {'with' if masks else 'without'} masks, one worker process",
        seconds, baseline=THEIRS if THEIRS in loaders else next(iter(loaders)), amount=count,
    )  # fmt: skip


def compare_jitter(
    train_json: str, train_images: str, *, size: int, short_side: int, max_size: int, masks: bool, count: int,
    repeat: int,
) -> Iterator[Comparison]:  # fmt: skip
    """The same for large-scale jitter and copy-paste, beside resizing alone and Detectron2's mapper with that jitter.

    Args:
        size: px of the jitter's result. Images are resized to that short side, too.
        short_side, max_size: px, of the resized images that all is compared with.

    Raises:
        DataError: the data cannot be read, or no image has an annotation.
    """
    dataset = read_coco(train_json, train_images, drop_empty_boxes=True).drop_empty()
    for method in RESIZE_METHODS:
        flip, jitter = RandomFlip(), LargeScaleJitter(size=size, method=method)
        plain = f"short side {short_side} px, at most {max_size}"
        ways = {
            plain: resize_and_flip(short_sides=(short_side,), max_size=max_size, method=method),
            f"short side {size} px": resize_and_flip(short_sides=(size,), max_size=size * 5 // 3, method=method),
            "large-scale jitter": [jitter, flip],
            "large-scale jitter, copy-paste": [jitter, flip, CopyPaste()],
        }
        loaders: dict[str, Iterable[list[dict[str, Any]]]] = {
            name: train_loader(
                [dataset], augmentations=ways[name], ims_per_batch=1, seed=0, grouping=False, masks=masks, num_workers=1
            )
            for name in ways
        }
        try:
            from ..integrations.detectron2_mapper import jittered_batches
        except ImportError:
            logger.info("Detectron2 is not installed: nothing to compare with.")
        else:
            loaders[THEIR_JITTER] = jittered_batches(dataset, size=size, masks=masks, num_workers=1)
        seconds = time_alternately({name: _some(loader, count) for name, loader in loaders.items()}, repeat=repeat)
        yield Comparison(
            f"{count} samples, INPUT.RESIZE {method}, {'with' if masks else 'without'} masks, one worker process",
            seconds, baseline=plain, amount=count,
        )  # fmt: skip


def _some(loader: Iterable[list[dict[str, Any]]], count: int) -> Callable[[], None]:
    batches = iter(loader)

    def run() -> None:
        for _ in range(count):
            next(batches)

    return run


def _log_difference(dataset: CocoDataset, augmentations: Mapping[str, Sequence[Augmentation]]) -> None:
    """How far the pixels of the two ways are apart."""
    one, other = (
        TrainDataset([dataset], augmentations=augmentation, seed=0, format="BGR", masks=False)
        for augmentation in augmentations.values()
    )
    levels = np.zeros(256, np.int64)
    for i in range(min(IMAGES_COMPARED, len(dataset))):
        apart = one[(i, i)]["image"].short() - other[(i, i)]["image"].short()
        levels += np.bincount(apart.abs().flatten().numpy(), minlength=256)
    logger.info(
        "%s differ in %.3f %% of %d values, by %d grey levels at most.", " and ".join(augmentations),
        100 * levels[1:].sum() / levels.sum(), levels.sum(), np.flatnonzero(levels).max(),
    )  # fmt: skip
