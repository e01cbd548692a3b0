"""Batches of images for training and evaluation, and the loaders that make them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from ...data.samplers import Item, contiguous_shard
from ...data.skipping import ReplaceBadImages, SkippedImages
from ...data.worker_loader import Loader
from ...errors import DataError
from .dataset import ClassificationDataset
from .decoding import decode_image
from .sampler import ImageBatchSampler
from .transforms import AUGMENTATION, CROP, ImageSizes, RandomCrop, resize_center_crop, seed_sample


@dataclass(frozen=True)
class Batch:
    """Images of one size with their classes.

    Attributes:
        images: uint8 (N, 3, S, S), RGB.
        labels: int64 (N,).
        numbers: int64 (N,), of the samples in the run, or the indices of the images in an evaluation.
        names: N names for sentences.
    """

    images: torch.Tensor
    labels: torch.Tensor
    numbers: torch.Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[dict[str, str]]:
        """What the training loop asks of samples: whose they are."""
        return ({"image_id": name} for name in self.names)

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU reads by itself."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.numbers, self.names)


@dataclass(frozen=True, kw_only=True)
class TrainPipeline:
    """How an image is looked at in training.

    Attributes:
        augment: what follows the crop; None leaves it out.
        steps_per_epoch: for the sizes, a fraction.
    """

    seed: int
    ims_per_batch: int
    steps_per_epoch: float
    sizes: ImageSizes
    crop: RandomCrop
    augment: v2.Transform | None


class TrainDataset:
    """Samples of training by (number in the run, index of the image): nothing else decides them."""

    def __init__(self, images: ClassificationDataset, view: TrainPipeline) -> None:
        self._images, self._view = images, view

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, item: Item) -> tuple[torch.Tensor, int, int, str]:
        number, index = item
        view = self._view
        size = view.sizes.at(number // view.ims_per_batch / view.steps_per_epoch)
        pixels = _pixels(self._images, index)
        seed_sample(view.seed, number, CROP)
        image = view.crop(pixels, size)
        if view.augment is not None:
            seed_sample(view.seed, number, AUGMENTATION)
            image = view.augment(image)
        return image, int(self._images.labels[index]), number, self._images.names[index]


class TestDataset:
    """Centre crops by the index of the image."""

    __test__ = False  # not a test, whatever its name makes pytest think

    def __init__(self, images: ClassificationDataset, *, size: int, crop_ratio: float) -> None:
        self._images, self._size, self._crop_ratio = images, size, crop_ratio

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int, str]:
        image = resize_center_crop(_pixels(self._images, index), self._size, self._crop_ratio)
        return image, int(self._images.labels[index]), index, self._images.names[index]


def _pixels(images: ClassificationDataset, index: int) -> torch.Tensor:
    pixels = decode_image(images.read(index), images.describe(index))
    # A copy only where the decoder gave memory that must not be written, as PyTorch cannot hold such.
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)


def collate(samples: Sequence[tuple[torch.Tensor, int, int, str]]) -> Batch:
    """One batch of samples of one size."""
    images, labels, numbers, names = zip(*samples)
    return Batch(torch.stack(images), torch.tensor(labels), torch.tensor(numbers), list(names))


def train_loader(
    images: ClassificationDataset, view: TrainPipeline, *, start: int = 0, accumulate: int = 1, repeats: int = 1,
    num_workers: int = 0, rank: int = 0, world_size: int = 1, pin_memory: bool = False,
    skipped: SkippedImages | None = None,
) -> Loader:  # fmt: skip
    """Endless micro-batches of this process, `accumulate` for each step, from step `start` on.

    `skipped` counts the bad images that are left out, as many as it allows; None allows none.

    Raises:
        ConfigError: a batch that cannot be divided.
        DataError: there are no images. While iterating: an image that cannot be read, when no more may be left out.
    """
    if not len(images):
        raise DataError(f"There are no images in {images.source}.")
    batches = ImageBatchSampler(
        len(images), ims_per_batch=view.ims_per_batch, seed=view.seed, start=start, repeats=repeats
    )
    parts: Any = lambda: batches.shard(rank=rank, world_size=world_size, accumulate=accumulate)  # noqa: E731
    skipped = skipped or SkippedImages()
    samples = ReplaceBadImages(
        TrainDataset(images, view), groups=np.zeros(len(images), np.int64), seed=view.seed, budget=skipped.budget
    )
    return Loader(
        samples, parts, num_images=len(images), num_workers=num_workers, collate=collate, pin_memory=pin_memory,
        skipped=skipped,
    )  # fmt: skip


def test_loader(
    images: ClassificationDataset,
    *,
    size: int,
    crop_ratio: float,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """This process's share of the images, each once, in their order.

    Raises:
        DataError: while iterating, an image that cannot be read.
    """
    share = contiguous_shard(len(images), rank, world_size)
    batches = [share[first : first + batch_size] for first in range(0, len(share), batch_size)]
    return Loader(
        TestDataset(images, size=size, crop_ratio=crop_ratio), lambda: iter(batches), num_images=len(share),
        num_workers=min(num_workers, len(batches)), length=len(batches), collate=collate, pin_memory=pin_memory,
    )  # fmt: skip


test_loader.__test__ = False
