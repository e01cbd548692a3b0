"""Loaders of samples for training and for evaluation, and what a config says of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from fvcore.common.config import CfgNode

from ..errors import ConfigError, DataError
from .augmentations import Augmentation, build_augmentations
from .coco import compare_categories
from .coco_dataset import CocoDataset
from .epochs import Epoch, RepeatFactorEpoch, factors_of_pairs, random_subset, repeat_factors, sampling
from .images import FORMATS
from .samplers import TrainBatchSampler, aspect_groups, contiguous_shard
from .samples import TestDataset, TrainDataset
from .skipping import ReplaceBadImages, SkippedImages
from .tile_samples import TiledTestDataset, WindowSampler
from .tile_truth import TrainTiles, TrainWindows, WindowEpoch, find_windows, train_tiles
from .transforms import RESIZE_METHODS
from .worker_loader import Loader

# The meta-architectures whose samples have `sem_seg`.
LABEL_PIXELS = ("SemanticSegmentor", "PanopticFPN")

logger = logging.getLogger(__name__)


def train_loader(
    datasets: Sequence[CocoDataset],
    *,
    augmentations: Sequence[Augmentation],
    ims_per_batch: int,
    seed: int,
    start: int = 0,
    accumulate: int = 1,
    grouping: bool = True,
    filter_empty: bool = True,
    subset_ratio: float = 1.0,
    repeat_threshold: float = 0.0,
    repeat_sqrt: bool = True,
    tiles: TrainTiles | None = None,
    masks: bool = False,
    min_keypoints: int | None = None,
    ignore: int | None = None,
    most_proposals: int | None = None,
    format: str = "BGR",
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    skipped: SkippedImages | None = None,
) -> Loader:
    """Endless micro-batches of training samples from one data set or several one after another.

    Args:
        datasets: of the same categories.
        augmentations: done to each sample one after another.
        ims_per_batch: images per optimiser step, over all processes and parts.
        seed: from 0; with `start` it decides every sample, whatever the numbers of workers and processes.
        start: optimiser steps done before.
        accumulate: micro-batches per optimiser step.
        grouping: whether a batch is of wide images only or of tall ones only.
        filter_empty: whether images without annotations but crowds are left out.
        subset_ratio: the share of the remaining images that is trained on, see `epochs.random_subset`.
        repeat_threshold, repeat_sqrt: see `epochs.repeat_factors`; 0 repeats no image.
        tiles: has windows of the images in place of images; None has whole ones.
        masks: whether samples have `gt_masks`.
        min_keypoints: samples have `gt_keypoints`, and images with fewer labelled ones are left out; None: they have
            none.
        ignore: give samples `sem_seg`, the class of each pixel, with this where there is none; None does not.
        most_proposals: give samples `proposals`, so many at most of those that the data sets have; None does not.
        format: BGR or RGB.
        num_workers: processes that load; 0 loads in this one.
        pin_memory: whether images come in memory that a GPU reads by itself, while the host goes on.
        skipped: counts the bad images that are left out, as many as it allows; None allows none.

    Raises:
        DataError: no images, categories that differ, or masks asked of annotations without. While iterating: an image
            that cannot be read or is not of the size that the JSON gives, when no more of these may be left out.
        ConfigError: a batch that cannot be divided, or a ratio that cannot work.
    """
    if not datasets:
        raise DataError("There is no data set to train on: name one in DATASETS.TRAIN, or give DATASETS.TRAIN_JSON.")
    for other in datasets[1:]:
        compare_categories(datasets[0], other)
    used = _trained_on(
        datasets, filter_empty=filter_empty, min_keypoints=min_keypoints, subset_ratio=subset_ratio, seed=seed
    )
    if masks:
        _check_masks(used)
    if ignore is not None:
        check_labels(used)
    windows = None if tiles is None else find_windows(used, tiles)
    sizes = np.concatenate([dataset.sizes.numpy() for dataset in used]) if windows is None else windows.sizes
    groups = aspect_groups(sizes) if grouping else np.zeros(len(sizes), np.int64)
    epoch = _epoch(used, windows, tiles, repeat_threshold, repeat_sqrt)
    batches = TrainBatchSampler(groups, ims_per_batch=ims_per_batch, seed=seed, start=start, epoch=epoch)
    samples = TrainDataset(
        used, augmentations=augmentations, seed=seed, format=format, masks=masks, ignore=ignore, windows=windows,
        keypoints=min_keypoints is not None, most_proposals=most_proposals,
    )  # fmt: skip
    skipped = skipped or SkippedImages()
    return Loader(
        ReplaceBadImages(samples, groups=groups, seed=seed, budget=skipped.budget, image_of=samples.image_of),
        lambda: batches.shard(rank=rank, world_size=world_size, accumulate=accumulate),
        num_images=len(samples),
        num_workers=num_workers,
        pin_memory=pin_memory,
        skipped=skipped,
    )


def _epoch(
    used: Sequence[CocoDataset], windows: TrainWindows | None, tiles: TrainTiles | None, threshold: float, sqrt: bool
) -> Epoch | None:
    """What an epoch has, where that is not every image once."""
    if windows is None:
        return RepeatFactorEpoch(repeat_factors(used, threshold, sqrt=sqrt)) if threshold > 0 else None
    full = None
    if threshold > 0:
        pairs = windows.class_windows, windows.classes
        full = RepeatFactorEpoch(factors_of_pairs(*pairs, windows.full, threshold, sqrt=sqrt))
    return WindowEpoch(windows, empty=tiles.empty, full=full)


def _trained_on(
    datasets: Sequence[CocoDataset], *, filter_empty: bool, min_keypoints: int | None, subset_ratio: float, seed: int
) -> list[CocoDataset]:
    used = [dataset.drop_empty() if filter_empty else dataset for dataset in datasets]
    if min_keypoints is not None:
        _check_keypoints(used)
        used = [dataset.drop_few_keypoints(min_keypoints) for dataset in used]
        if not any(map(len, used)):
            raise DataError(
                f"{used[0].json_path}: no image has {min_keypoints} labelled keypoints (MODEL.ROI_KEYPOINT_HEAD."
                "MIN_KEYPOINTS_PER_IMAGE), so there is nothing to train on. Lower it, or set MODEL.KEYPOINT_ON False."
            )
    return used if subset_ratio == 1 else random_subset(used, ratio=subset_ratio, seed=seed)


def images_trained_on(cfg: CfgNode, datasets: Sequence[CocoDataset], *, seed: int) -> list[CocoDataset]:
    """The images that `build_train_loader` draws from, whose indices count through these sets one after another."""
    ratio = sampling(cfg).get("subset_ratio", 1.0)
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    return _trained_on(
        datasets, filter_empty=filter_empty, min_keypoints=_min_keypoints(cfg), subset_ratio=ratio, seed=seed
    )


def _min_keypoints(cfg: CfgNode) -> int | None:
    return cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else None


def test_loader(
    dataset: CocoDataset,
    *,
    batch_size: int = 1,
    short_side: int,
    max_size: int,
    format: str = "BGR",
    method: str = "pil",
    most_proposals: int | None = None,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """This process's share of the images, in the order of the file, without ground truth; it has a length.

    Args:
        batch_size: images per list.
        short_side: px, 0 leaves images as they are; the long side is at most `max_size`.
        format: BGR or RGB.
        method: of `transforms.resize_image`.
        most_proposals: see `train_loader`.
        num_workers: processes that load; 0 loads in this one.
        pin_memory: see `train_loader`.

    Raises:
        DataError: while iterating, an image that cannot be read or is not of the size that the JSON gives.
    """
    share = contiguous_shard(len(dataset), rank, world_size)
    batches = [share[first : first + batch_size] for first in range(0, len(share), batch_size)]
    return Loader(
        TestDataset(
            dataset,
            short_side=short_side,
            max_size=max_size,
            format=format,
            method=method,
            most_proposals=most_proposals,
        ),
        lambda: iter(batches),
        num_images=len(share),
        num_workers=min(num_workers, len(batches)),
        length=len(batches),
        pin_memory=pin_memory,
    )


test_loader.__test__ = False  # not a test, whatever its name makes pytest think


def build_train_loader(
    cfg: CfgNode, datasets: Sequence[CocoDataset], *, seed: int, start: int = 0, rank: int = 0, world_size: int = 1,
    pin_memory: bool = False, skipped: SkippedImages | None = None,
) -> Loader:  # fmt: skip
    """The training loader that `cfg` asks for, see `train_loader`.

    Raises:
        ConfigError: a key whose value cannot work.
        DataError: see `train_loader`.
    """
    _check_input(cfg)
    return train_loader(
        datasets,
        augmentations=build_augmentations(cfg),
        ims_per_batch=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        start=start,
        accumulate=cfg.SOLVER.ACCUMULATE,
        grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        tiles=train_tiles(cfg),
        masks=cfg.MODEL.MASK_ON,
        min_keypoints=_min_keypoints(cfg),
        ignore=ignore_value(cfg),
        most_proposals=cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        format=cfg.INPUT.FORMAT,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=rank,
        world_size=world_size,
        pin_memory=pin_memory,
        skipped=skipped,
        **sampling(cfg),
    )


def tiled_test_loader(
    dataset: CocoDataset,
    sampler: WindowSampler,
    *,
    batch_size: int = 1,
    format: str = "BGR",
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """This process's share of the images as `test_loader` has them, window after window: see `TiledTestDataset`. No
    list has windows of two images.

    Raises:
        DataError: as `test_loader`.
    """
    samples = TiledTestDataset(dataset, sampler, format=format)
    share = contiguous_shard(len(dataset), rank, world_size)
    keys = (samples.keys(index) for index in share)
    batches = [one[first : first + batch_size] for one in keys for first in range(0, len(one), batch_size)]
    return Loader(
        samples,
        lambda: iter(batches),
        num_images=len(share),
        num_workers=min(num_workers, len(batches)),
        length=len(batches),
        pin_memory=pin_memory,
    )


def build_test_loader(
    cfg: CfgNode, dataset: CocoDataset, *, rank: int = 0, world_size: int = 1, pin_memory: bool = False,
    sampler: WindowSampler | None = None,
) -> Loader:  # fmt: skip
    """The evaluation loader that `cfg` asks for, see `test_loader`; with `sampler` see `tiled_test_loader`.

    Raises:
        ConfigError: a key whose value cannot work.
    """
    _check_input(cfg)
    if sampler is not None:
        return tiled_test_loader(
            dataset,
            sampler,
            batch_size=cfg.TEST.IMS_PER_BATCH,
            format=cfg.INPUT.FORMAT,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            rank=rank,
            world_size=world_size,
            pin_memory=pin_memory,
        )
    return test_loader(
        dataset,
        batch_size=cfg.TEST.IMS_PER_BATCH,
        short_side=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        format=cfg.INPUT.FORMAT,
        method=cfg.INPUT.RESIZE,
        most_proposals=cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST if cfg.MODEL.LOAD_PROPOSALS else None,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=rank,
        world_size=world_size,
        pin_memory=pin_memory,
    )


def _check_input(cfg: CfgNode) -> None:
    for key, value, known in (
        ("INPUT.FORMAT", cfg.INPUT.FORMAT, FORMATS),
        ("INPUT.RESIZE", cfg.INPUT.RESIZE, RESIZE_METHODS),
    ):
        if value not in known:
            raise ConfigError(f"{key} '{value}' is unknown: use one of {', '.join(known)}.")
    for key, value, least in (
        ("INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST, 0),
        ("INPUT.MAX_SIZE_TEST", cfg.INPUT.MAX_SIZE_TEST, 1),
        ("TEST.IMS_PER_BATCH", cfg.TEST.IMS_PER_BATCH, 1),
        ("DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS, 0),
    ):
        if value < least:
            raise ConfigError(f"{key} must be at least {least}, got {value}.")


def _check_keypoints(datasets: Sequence[CocoDataset]) -> None:
    first = datasets[0].check_keypoints()
    for dataset in datasets[1:]:
        if dataset.check_keypoints().names != first.names:
            raise DataError(
                f"{datasets[0].json_path} and {dataset.json_path} have different keypoints: give both the same names "
                "in the same order."
            )


def ignore_value(cfg: CfgNode) -> int | None:
    """The label of pixels of no class, where the model learns the classes of pixels; else None."""
    labelled = cfg.MODEL.META_ARCHITECTURE in LABEL_PIXELS
    return cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE if labelled else None


def check_labels(datasets: Sequence[CocoDataset]) -> None:
    """Refuse data without classes of pixels.

    Raises:
        DataError: naming the data set and what to give.
    """
    for dataset in datasets:
        if dataset.pixel_labels is None:
            raise DataError(
                f"{dataset.json_path} has no classes of pixels, which the model (MODEL.META_ARCHITECTURE) learns: give "
                "a folder of label PNGs (DATASETS.TRAIN_SEM_SEG, VAL_SEM_SEG) or panoptic ones "
                "(DATASETS.TRAIN_PANOPTIC_JSON, VAL_PANOPTIC_JSON), or name a data set that has them."
            )


def _check_masks(datasets: Sequence[CocoDataset]) -> None:
    for dataset in datasets:
        lacking, total = dataset.num_annotations_without_mask(), dataset.num_annotations()
        if lacking == total > 0:
            raise DataError(
                f"{dataset.json_path}: none of its {total} annotations has a segmentation, which a mask head learns "
                "from. Train a detector without masks (MODEL.MASK_ON False, a faster_rcnn config), or add the "
                "segmentations."
            )
        if lacking:
            logger.warning(
                "%s: %d of %d annotations have no segmentation: they train the box head only.",
                dataset.json_path, lacking, total,
            )  # fmt: skip
