"""The sequence of batches."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from se_det.data.samplers import TrainBatchSampler, aspect_groups, contiguous_shard
from se_det.errors import ConfigError, DataError


def first(count: int, groups: list[int] | np.ndarray, **settings: int) -> list[list[tuple[int, int]]]:
    return list(islice(TrainBatchSampler(groups, **{"ims_per_batch": 4, "seed": 3, **settings}), count))


def test_an_epoch_has_each_image_once_and_the_next_another_order() -> None:
    batches = first(10, np.zeros(20, int))
    indices = [index for batch in batches for _, index in batch]
    assert sorted(indices[:20]) == list(range(20)) == sorted(indices[20:])
    assert indices[:20] != indices[20:]
    assert indices[:20] != list(range(20))
    assert [number for batch in batches for number, _ in batch] == list(range(40))


def test_the_seed_decides_it() -> None:
    groups = np.zeros(50, int)
    assert first(30, groups) == first(30, groups)
    assert first(30, groups) != first(30, groups, seed=4)


def test_a_batch_is_of_one_group_and_fills_up_as_its_images_come() -> None:
    groups = np.array([0, 1, 0, 0, 1, 2, 0, 1, 0, 0, 1])
    batches = first(200, groups, ims_per_batch=3)
    # The same in words: images in the order of the epochs, each put in its group's bucket, a full bucket is a batch.
    buckets: dict[int, list[int]] = {0: [], 1: [], 2: []}
    expected = []
    for epoch in range(100):
        for index in np.random.default_rng((3, epoch, 1)).permutation(11).tolist():
            bucket = buckets[groups[index]]
            bucket.append(index)
            if len(bucket) == 3:
                expected.append(bucket.copy())
                bucket.clear()
    assert [[index for _, index in batch] for batch in batches] == expected[:200]
    seen = Counter(index for batch in batches for _, index in batch)
    assert max(seen.values()) - min(seen.values()) <= 3  # however rare its group, an image has its turn


@pytest.mark.parametrize("start", [1, 5, 6, 37, 100])
def test_it_goes_on_where_it_stopped(start: int) -> None:
    groups = np.arange(23) % 3
    assert first(20, groups, start=start) == first(start + 20, groups)[start:]


def test_more_images_a_batch_than_there_are() -> None:
    batches = first(6, [0, 1, 0], ims_per_batch=8)
    assert all(len(batch) == 8 and len({index == 1 for _, index in batch}) == 1 for batch in batches)


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3), (3, 2), (6, 1), (12, 1)])
def test_processes_and_parts_share_the_same_batches(world_size: int, accumulate: int) -> None:
    batches = TrainBatchSampler(np.arange(40) % 2, ims_per_batch=12, seed=1)
    parts = [
        list(islice(batches.shard(rank=rank, world_size=world_size, accumulate=accumulate), 5 * accumulate))
        for rank in range(world_size)
    ]
    assert {len(micro) for rank in parts for micro in rank} == {12 // world_size // accumulate}
    together = [
        [
            item
            for part in range(accumulate)
            for rank in range(world_size)
            for item in parts[rank][step * accumulate + part]
        ]
        for step in range(5)
    ]
    assert together == list(islice(batches, 5))


def test_what_cannot_be_cut_or_drawn_from_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SOLVER.IMS_PER_BATCH 4 cannot be divided among 3 processes"):
        TrainBatchSampler([0], ims_per_batch=4, seed=0).shard(world_size=3)
    with pytest.raises(ConfigError, match="give a multiple of 8"):
        TrainBatchSampler([0], ims_per_batch=4, seed=0).shard(world_size=4, accumulate=2)
    with pytest.raises(DataError, match="no images to train on"):
        TrainBatchSampler([], ims_per_batch=4, seed=0)


def test_groups_are_wide_and_not_wide() -> None:
    assert aspect_groups(np.array([[480, 640], [640, 480], [500, 500]])).tolist() == [0, 1, 1]


@pytest.mark.parametrize(("length", "world_size"), [(10, 3), (2, 4), (0, 2), (12, 4)])
def test_shares_are_neighbours_in_order_and_even(length: int, world_size: int) -> None:
    shares = [contiguous_shard(length, rank, world_size) for rank in range(world_size)]
    assert [index for share in shares for index in share] == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
