"""Training goes on without an image that cannot be read: another takes its place, as often as a budget allows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from .. import comm
from ..errors import DataError
from .samplers import Item

KEY = "DATALOADER.SKIP_BAD_IMAGES"
MAX_NAMED = 16  # images in a sentence

logger = logging.getLogger(__name__)


class ReplacedSample(NamedTuple):
    """A sample that took the place of bad images': `found` says of each, by its index, what is wrong.

    `sample` is None when more were found than a run may leave out.
    """

    sample: Any
    found: dict[int, str]


class ReplaceBadImages:
    """Training samples of which those of a bad image are another image's of its group; map-style like theirs.

    Which one is a function of the seed and the number of the sample in the run, so that a run that is resumed, or has
    another number of workers, replaces it by the same.

    Args:
        samples: by (number, index).
        groups: a number per image, see `samplers.TrainBatchSampler`.
        budget: how many bad images a run may leave out.
        image_of: the image that an index is of; by default it is the index.
    """

    def __init__(
        self, samples: Any, *, groups: np.ndarray, seed: int, budget: int, image_of: Callable[[int], int] = int
    ) -> None:
        self._image_of = image_of
        self._samples, self._groups, self._seed, self._budget = samples, np.asarray(groups), seed, budget

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, item: Item) -> Any:
        """The sample, or `ReplacedSample`.

        Raises:
            DataError: no image of the group can be read.
        """
        number, index = item
        found: dict[int, str] = {}
        for candidate in chain([index], self._others(number, index)):
            try:
                sample = self._samples[number, candidate]
            except DataError as error:
                bad = getattr(error, "index", candidate)  # or another that it is augmented with
                found[self._image_of(bad)] = str(error)
                if len(found) > self._budget:
                    return ReplacedSample(None, found)
                continue
            return ReplacedSample(sample, found) if found else sample
        raise DataError(f"No other image can take the place of those that cannot be used: {_listed(found)}")

    def _others(self, number: int, index: int) -> Iterator[int]:
        """The other images of its group, in random order. A generator, as few samples ask for the first."""
        group = np.flatnonzero(self._groups == self._groups[index])
        # Three numbers, so that these are not the random numbers of the order or of the sample.
        order = np.random.default_rng((self._seed, number, 2)).permutation(group)
        yield from (int(other) for other in order if other != index)


class SkippedImages:
    """The bad images that a run has left out.

    Args:
        budget: how many different ones there may be.
        found: those of the run resumed, as in `found`.

    Attributes:
        budget: the same.
        found: index of an image to what is wrong with it.
    """

    def __init__(self, budget: int = 0, found: Mapping[int, str] | None = None) -> None:
        self.budget = budget
        self.found: dict[int, str] = dict(found or {})

    def record(self, found: Mapping[int, str]) -> None:
        """Count and log what a batch was loaded without.

        Raises:
            DataError: naming them, when they are more than the budget.
        """
        for index, sentence in found.items():
            if index in self.found:
                continue
            self.found[index] = sentence
            if len(self.found) <= self.budget:
                logger.warning("Left out of training (%d of at most %d, %s): %s", len(self.found), self.budget, KEY,
                               sentence)  # fmt: skip
        if found and len(self.found) > self.budget:
            if not self.budget:
                raise DataError(f"{_listed(found)} {KEY} 1 would leave one such image out of training.")
            raise DataError(
                f"{len(self.found)} images cannot be used, and {KEY} is {self.budget}: {_listed(self.found)} Mend the "
                f"data, or raise {KEY}; --resume goes on from the last checkpoint."
            )

    def synchronize(self) -> None:
        """Count what other processes found. Every process must call it at the same step.

        Raises:
            DataError: on every process, when all together are more than the budget.
        """
        if not self.budget or comm.get_world_size() == 1:
            return
        merged: dict[int, str] = {}
        for found in comm.gather(self.found):
            merged |= found
        self.record(comm.broadcast_object(merged))


def _listed(found: Mapping[int, str]) -> str:
    more = f" And {len(found) - MAX_NAMED} more." if len(found) > MAX_NAMED else ""
    # In the order of the data, so that all processes say the same.
    return " ".join(found[index] for index in sorted(found)[:MAX_NAMED]) + more
