"""Which images a step trains on: an endless sequence of batches that the seed alone decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import ConfigError, DataError
from .epochs import Epoch, UniformEpoch

Item = tuple[int, int]  # (number of the sample in the run, index of its image)


class TrainBatchSampler:
    """Batches of `ims_per_batch` images, of which every process computes the same sequence.

    Each epoch is a new order of its images. With groups a batch is of one group, so that wide images are not padded to
    the height of tall ones; what an epoch leaves over in a group starts that group's first batch of the next. Whatever
    the number of processes and parts, the sequence of images is the same.
    """

    def __init__(
        self, groups: Sequence[int] | np.ndarray, *, ims_per_batch: int, seed: int, start: int = 0,
        epoch: Epoch | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            groups: a number per image; batches do not mix them. All equal: no grouping.
            epoch: which images an epoch has; without it, every image once.
            ims_per_batch: images per optimiser step, over all processes and parts.
            seed: from 0; decides the order.
            start: how many batches were consumed already.

        Raises:
            DataError: there are no images.
        """
        self.groups = np.asarray(groups)
        if len(self.groups) == 0:
            raise DataError(
                "There are no images to train on. Check the annotation file; DATALOADER.FILTER_EMPTY_ANNOTATIONS False "
                "keeps images without annotations."
            )
        self.ims_per_batch, self.seed, self.start = ims_per_batch, seed, start
        self.epoch = epoch or UniformEpoch(len(self.groups))

    def __iter__(self) -> Iterator[list[Item]]:
        """Batches from `start` on, each a list of (number of the sample, index)."""
        batch = 0
        for indices in self._epochs():
            if batch + len(indices) > self.start:
                for row in indices[max(self.start - batch, 0) :].tolist():
                    number = max(batch, self.start)
                    first = number * self.ims_per_batch
                    yield [(first + place, index) for place, index in enumerate(row)]
                    batch = number + 1
            else:
                batch += len(indices)

    def shard(self, *, rank: int = 0, world_size: int = 1, accumulate: int = 1) -> Iterator[list[Item]]:
        """The micro-batches that one process loads: `accumulate` for each batch, which is cut into that many parts,
        and each of those among the processes.

        Raises:
            ConfigError: the batch cannot be cut evenly.
        """
        size, rest = divmod(self.ims_per_batch, world_size * accumulate)
        if rest or size == 0:
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH {self.ims_per_batch} cannot be divided among {world_size} processes times "
                f"SOLVER.ACCUMULATE {accumulate}: give a multiple of {world_size * accumulate}."
            )
        return self._parts(rank, world_size, accumulate, size)

    def _parts(self, rank: int, world_size: int, accumulate: int, size: int) -> Iterator[list[Item]]:
        for batch in self:
            for part in range(accumulate):
                first = (part * world_size + rank) * size
                yield batch[first : first + size]

    def _epochs(self) -> Iterator[np.ndarray]:
        """For each epoch the batches (b, ims_per_batch) that it completes, in the order in which they fill up."""
        size, epoch = self.ims_per_batch, 0
        left_over = {group: np.zeros(0, np.int64) for group in np.unique(self.groups).tolist()}
        while True:
            # Two numbers and a mark, so that these are not the random numbers of the sample of that number.
            order = self.epoch(np.random.default_rng((self.seed, epoch, 1)))
            batches, completed = [np.zeros((0, size), np.int64)], [np.zeros(0, np.int64)]
            for group, waiting in left_over.items():
                places = np.flatnonzero(self.groups[order] == group)
                queue = np.concatenate([waiting, order[places]])
                whole = len(queue) // size
                batches.append(queue[: whole * size].reshape(whole, size))
                # When a batch's last image comes up; it is of this epoch, as fewer than a batch were waiting.
                completed.append(places[np.arange(1, whole + 1) * size - 1 - len(waiting)])
                left_over[group] = queue[whole * size :]
            yield np.concatenate(batches)[np.argsort(np.concatenate(completed), kind="stable")]
            epoch += 1


def aspect_groups(sizes: np.ndarray) -> np.ndarray:
    """0 for images wider than high, 1 for others; `sizes` (n, 2) heights and widths."""
    return np.where(sizes[:, 1] > sizes[:, 0], 0, 1)


def contiguous_shard(length: int, rank: int, world_size: int) -> range:
    """The indices of one process: neighbours, and as many as the others' give or take one."""
    share, rest = divmod(length, world_size)
    first = rank * share + min(rank, rest)
    return range(first, first + share + (rank < rest))
