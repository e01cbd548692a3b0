"""The images of an epoch and their order: all of them, some more often than others, or a part of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from fvcore.common.config import CfgNode

from ..errors import ConfigError
from .coco_dataset import CocoDataset

SUBSET = 4  # among the seeds of the subset: 1 is the order of an epoch, 2 and 3 are in `skipping` and `samples`

logger = logging.getLogger(__name__)


class Epoch(Protocol):
    """Detectron2's samplers, but for the order within an epoch, which is drawn by NumPy."""

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        """int64: indices of the images of one epoch, in their order, which `random` alone decides."""
        ...


class UniformEpoch:
    """Each image once (Detectron2's TrainingSampler)."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        return random.permutation(self._count)


class RepeatFactorEpoch:
    """Each image as often as its factor says: the whole part of it, and once more with the rest as probability
    (Detectron2's RepeatFactorTrainingSampler).

    Args:
        factors: float (n,), of `repeat_factors`.
    """

    def __init__(self, factors: np.ndarray) -> None:
        self._whole = np.floor(factors).astype(np.int64)
        self._rest = factors - self._whole

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        times = self._whole + (random.random(len(self._rest)) < self._rest)
        return random.permutation(np.repeat(np.arange(len(times)), times))


def random_subset(datasets: Sequence[CocoDataset], *, ratio: float, seed: int) -> list[CocoDataset]:
    """A share of the images, drawn by the seed once for the whole run (Detectron2's RandomSubsetTrainingSampler).

    Raises:
        ConfigError: the ratio is not above 0 and up to 1, or leaves no image.
    """
    count = sum(map(len, datasets))
    if not 0 < ratio <= 1 or (count and int(count * ratio) == 0):
        raise ConfigError(
            f"DATALOADER.RANDOM_SUBSET_RATIO is {ratio}; it must be above 0 and up to 1, and leave at least one of the "
            f"{count} images."
        )
    chosen = np.sort(np.random.default_rng((seed, 0, SUBSET)).permutation(count)[: int(count * ratio)])
    result, first = [], 0
    for dataset in datasets:
        positions = chosen[(chosen >= first) & (chosen < first + len(dataset))] - first
        result.append(dataset.subset(positions))
        first += len(dataset)
    logger.info("Training on %d of %d images (DATALOADER.RANDOM_SUBSET_RATIO %s).", len(chosen), count, ratio)
    return result


def repeat_factors(datasets: Sequence[CocoDataset], threshold: float, *, sqrt: bool = True) -> np.ndarray:
    """How often each image should come up in an epoch: as often as the rarest of its classes needs.

    A class that a share f of the images has needs max(1, sqrt(threshold / f)) (Gupta et al. 2019, arXiv:1908.03195,
    appendix B.2; Detectron2's numbers). Crowds count, as in Detectron2.

    Args:
        threshold: the share below which images of a class are repeated.
        sqrt: without it the factor is threshold / f itself.

    Returns:
        float32 (n,), for the images of all data sets one after another.
    """
    image, kind, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for dataset in datasets:
        at, classes = dataset.classes_of_images()
        image.append(at + count)
        kind.append(classes)
        count += len(dataset)
    return factors_of_pairs(np.concatenate(image), np.concatenate(kind), count, threshold, sqrt=sqrt)


def factors_of_pairs(
    images: np.ndarray, kinds: np.ndarray, count: int, threshold: float, *, sqrt: bool = True
) -> np.ndarray:
    """As `repeat_factors`, from every pair of an image, of `count`, and a class that it has."""
    share = np.bincount(kinds) / max(count, 1)
    needed = threshold / np.where(share > 0, share, np.inf)
    by_class = np.maximum(np.sqrt(needed) if sqrt else needed, 1.0)
    factors = np.ones(count)
    np.maximum.at(factors, images, by_class[kinds])
    logger.info(
        "An epoch of %d images has %.0f on average: %d come up more than once, up to %.2f times (DATALOADER."
        "REPEAT_THRESHOLD %s).", count, factors.sum(), (factors > 1).sum(), factors.max(initial=1), threshold,
    )  # fmt: skip
    return factors.astype(np.float32)


def sampling(cfg: CfgNode) -> dict[str, Any]:
    """What DATALOADER.SAMPLER_TRAIN and the keys that it reads say, as arguments of `loader.train_loader`.

    Raises:
        ConfigError: the sampler is unknown, or a key that it reads cannot work.
    """
    settings = cfg.DATALOADER
    if settings.SAMPLER_TRAIN == "TrainingSampler":
        return {}
    if settings.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        if not 0 <= settings.REPEAT_THRESHOLD < np.inf:
            raise ConfigError(
                f"DATALOADER.REPEAT_THRESHOLD is {settings.REPEAT_THRESHOLD}; it must be a share of the images, such "
                "as 0.001: classes that fewer images have are repeated."
            )
        return {"repeat_threshold": settings.REPEAT_THRESHOLD, "repeat_sqrt": settings.REPEAT_SQRT}
    if settings.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        return {"subset_ratio": settings.RANDOM_SUBSET_RATIO}
    raise ConfigError(
        f"DATALOADER.SAMPLER_TRAIN '{settings.SAMPLER_TRAIN}' is not in the builtin engine: use TrainingSampler, "
        "RepeatFactorTrainingSampler or RandomSubsetTrainingSampler, or --engine detectron2."
    )
