"""Which images a step trains on: endless, decided by the seed alone, and found at any step without the ones before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...data.samplers import Item, TrainBatchSampler


class ImageBatchSampler(TrainBatchSampler):
    """Batches of images without groups: one order of all images after the other, cut into batches.

    With `repeats` an epoch takes every image so often, one after the other, and ends after as many samples as there
    are images, so that it has a share of them only (repeated augmentation, Hoffer et al., arXiv 1901.09335).

    Args:
        length: number of images, at least 1.
        ims_per_batch: images per optimiser step, over all processes and parts.
        seed: from 0; decides the order.
        start: how many batches were consumed already.
    """

    def __init__(self, length: int, *, ims_per_batch: int, seed: int, start: int = 0, repeats: int = 1) -> None:
        super().__init__(np.zeros(length, np.int8), ims_per_batch=ims_per_batch, seed=seed, start=start)
        self.repeats = repeats

    def __iter__(self) -> Iterator[list[Item]]:
        length, order_of = len(self.groups), -1
        step = self.start
        while True:
            batch = []
            for number in range(step * self.ims_per_batch, (step + 1) * self.ims_per_batch):
                epoch, place = divmod(number, length)
                if epoch != order_of:
                    order, order_of = self.order(epoch), epoch
                batch.append((number, int(order[place])))
            yield batch
            step += 1

    def order(self, number: int) -> np.ndarray:
        """The indices of one epoch, int64 (length,)."""
        # A mark, so that these are not the random numbers of the sample of that number.
        order = np.random.default_rng((self.seed, number, 1)).permutation(len(self.groups))
        return np.repeat(order, self.repeats)[: len(order)]
