"""The order of the images, which the seed alone decides."""

from __future__ import annotations

from itertools import islice

import pytest

from se_det.classification.data.sampler import ImageBatchSampler
from se_det.errors import ConfigError


def items(count: int, length: int = 10, **how) -> list:
    return list(islice(ImageBatchSampler(length, **{"ims_per_batch": 4, "seed": 1, **how}), count))


def test_every_epoch_has_every_image_once_and_numbers_go_on() -> None:
    flat = [item for batch in items(10) for item in batch]
    assert [number for number, _ in flat] == list(range(40))
    epochs = [[index for _, index in flat[first : first + 10]] for first in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert items(10, seed=2) != items(10)


def test_a_later_start_is_the_same_sequence() -> None:
    assert items(3, start=7) == items(10)[7:]
    # A hundred epochs of ImageNet are not gone through to get to the last.
    assert items(1, length=1_281_167, ims_per_batch=4, start=30_000_000)[0][0][0] == 120_000_000


def test_repeats_take_a_share_of_the_images_so_often() -> None:
    flat = [index for batch in items(5, repeats=3) for _, index in batch]
    for epoch in (flat[:10], flat[10:]):
        assert [epoch[i : i + 3] for i in (0, 3, 6)] == [[epoch[i]] * 3 for i in (0, 3, 6)]
        assert len(set(epoch)) == 4


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be divided among 3 processes"):
        ImageBatchSampler(10, ims_per_batch=4, seed=0).shard(world_size=3)
