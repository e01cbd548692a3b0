"""Which images an epoch has: repeated by their rarest class, or a subset."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from coco_files import CONTENT, changed, small_set

from se_det.config import get_cfg, merge_overrides
from se_det.data import CocoDataset, TrainBatchSampler, build_train_loader
from se_det.data.epochs import RepeatFactorEpoch, random_subset, repeat_factors
from se_det.errors import ConfigError


def test_an_image_is_repeated_as_its_rarest_class_needs(tmp_path: Path) -> None:
    # Of 4 images the class cup is in 2 (in one as a crowd), owl in 2; image 1 has owl alone, 2 nothing, 3 the crowd.
    dataset = small_set(tmp_path)
    images, classes = dataset.classes_of_images()
    assert list(zip(images.tolist(), classes.tolist())) == [(0, 0), (0, 1), (1, 1), (3, 0)]
    np.testing.assert_allclose(repeat_factors([dataset], 0.75), [1.5**0.5, 1.5**0.5, 1, 1.5**0.5], rtol=1e-6)
    np.testing.assert_allclose(repeat_factors([dataset], 1.0, sqrt=False), [2, 2, 1, 2])
    assert repeat_factors([dataset], 0.5).tolist() == [1, 1, 1, 1]
    # Data sets are counted together: of 6 images, cup is in 3 and owl in 4.
    both = repeat_factors([dataset, dataset.subset([0, 1])], 1.0, sqrt=False)
    np.testing.assert_allclose(both, [2, 1.5, 1, 2, 2, 1.5], rtol=1e-6)
    dropped = repeat_factors([dataset.drop_empty()], 1.0, sqrt=False)
    np.testing.assert_allclose(dropped, [2, 1], rtol=1e-6)
    assert len(CONTENT["images"]) == 4


def test_fractions_are_probabilities() -> None:
    epoch = RepeatFactorEpoch(np.array([1, 2.25, 3], np.float32))
    counts = np.array([np.bincount(epoch(np.random.default_rng(n)), minlength=3) for n in range(4000)])
    assert (counts[:, [0, 2]] == [1, 3]).all() and set(counts[:, 1]) == {2, 3}
    assert abs(counts[:, 1].mean() - 2.25) < 0.02
    orders = {tuple(epoch(np.random.default_rng(n))) for n in range(100)}
    assert len(orders) > 40


@pytest.mark.parametrize("start", [1, 7, 40])
def test_repeated_images_go_on_where_they_stopped(start: int) -> None:
    factors = np.random.default_rng(0).uniform(1, 3, 30).astype(np.float32)
    settings = {"ims_per_batch": 4, "seed": 3, "epoch": RepeatFactorEpoch(factors)}
    groups = np.arange(30) % 2
    ours = list(islice(TrainBatchSampler(groups, **settings, start=start), 20))
    whole = list(islice(TrainBatchSampler(groups, **settings), start + 300))
    assert ours == whole[start : start + 20]
    shares = np.bincount([index for batch in whole for _, index in batch], minlength=30) / len(whole)
    np.testing.assert_allclose(shares / shares.sum(), factors / factors.sum(), atol=0.006)
    assert all(len({groups[index] for _, index in batch}) == 1 for batch in whole)


def test_a_subset_is_the_same_for_a_seed_and_has_its_share(tmp_path: Path) -> None:
    dataset = small_set(tmp_path).subset(list(range(4)) * 25)
    subset = random_subset([dataset], ratio=0.3, seed=1)
    assert sum(map(len, subset)) == 30
    names = [part.file_names for part in subset]
    assert names == [part.file_names for part in random_subset([dataset], ratio=0.3, seed=1)]
    assert names != [part.file_names for part in random_subset([dataset], ratio=0.3, seed=2)]
    halves = random_subset([dataset, dataset], ratio=0.5, seed=1)
    assert len(halves) == 2 and sum(map(len, halves)) == 100 and all(30 < len(half) < 70 for half in halves)


def loader(dataset: CocoDataset, *keys, **settings):
    cfg = get_cfg()
    merge_overrides(cfg, ["SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "INPUT.MIN_SIZE_TRAIN", (32,),
                          "DATALOADER.ASPECT_RATIO_GROUPING", False,
                          "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False, *keys])  # fmt: skip
    return build_train_loader(cfg, [dataset], seed=1, **settings)


def ids(batches) -> list:
    return [sample["image_id"] for batch in batches for sample in batch]


def test_a_config_says_which(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    repeating = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")
    keys = (*repeating, "DATALOADER.REPEAT_THRESHOLD", 1.0, "DATALOADER.REPEAT_SQRT", False)
    found = ids(islice(loader(dataset, *keys), 70))  # an epoch has 2 + 2 + 1 + 2
    assert [found.count(i) for i in (5, 1, 900000000000, 7)] == [40, 40, 20, 40]
    assert ids(islice(loader(dataset, *keys), 30))[20:] == ids(islice(loader(dataset, *keys, start=10), 20))
    assert ids(islice(loader(dataset, *repeating), 9)) == ids(islice(loader(dataset), 9))  # the threshold is 0
    part = loader(dataset, "DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler",
                  "DATALOADER.RANDOM_SUBSET_RATIO", 0.5)  # fmt: skip
    assert part.num_images == 2 and len(set(ids(islice(part, 20)))) == 2


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (("RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", -0.1), "THRESHOLD is -0.1; it must be a"),
        (("RandomSubsetTrainingSampler", "DATALOADER.RANDOM_SUBSET_RATIO", 0.0), "RANDOM_SUBSET_RATIO is 0.0"),
        (("RandomSubsetTrainingSampler", "DATALOADER.RANDOM_SUBSET_RATIO", 1.5), "RANDOM_SUBSET_RATIO is 1.5"),
        (("RandomSubsetTrainingSampler", "DATALOADER.RANDOM_SUBSET_RATIO", 0.2), "leave at least one of the 4 images"),
        (("WeightedTrainingSampler",), "RepeatFactorTrainingSampler or RandomSubsetTrainingSampler, or --engine"),
    ],
)  # fmt: skip
def test_keys_that_cannot_work_are_refused(tmp_path: Path, keys: tuple, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        loader(small_set(tmp_path), "DATALOADER.SAMPLER_TRAIN", *keys)


def test_no_image_is_still_a_sentence(tmp_path: Path) -> None:
    content = changed("annotations", to=[])
    keys = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 0.5)
    assert len(ids(islice(loader(small_set(tmp_path, content), *keys), 2))) == 4
