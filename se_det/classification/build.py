"""From a recipe to the parts of a run that only pretraining has; the others are the detector's own."""

from __future__ import annotations

import logging

from fvcore.common.config import CfgNode
from torch import nn

from .. import comm
from ..backbones.catalog import create_model, parse_name
from ..backbones.classifier import Classifier
from ..config.validation import check_ranges
from ..errors import ConfigError
from ..training.resume_checks import MUTABLE_KEYS as DETECTORS
from .data.dataset import ClassificationDataset
from .data.loader import TrainPipeline
from .data.transforms import ImageSizes, RandomCrop, augmentation
from .losses import ClassificationLoss
from .objective import Objective, mixing
from .preprocessing import model_options, preprocessing

# The names by which the SP-SE and RG-SE authors' script knows its models.
ALIASES = {
    "RGSE50": "rg_se_resnet50",
    "RGSEX50": "rg_se_resnext50_32x4d",
    "SPSE50": "sp_se_resnet50",
    "SPSEX50": "sp_se_resnext50_32x4d",
}
NORMS = ("BN", "SyncBN", "GN")
AUGMENT_ON = ("worker", "device")
# The same data may lie elsewhere or in another way when a run goes on: its images and classes are compared by number.
MUTABLE_KEYS = DETECTORS | {"DATASETS.TRAIN", "DATASETS.TEST", "DATASETS.TRAIN_ROOT", "DATASETS.TEST_ROOT",
                          "DATASETS.CLASSES", "SOLVER.EPOCHS"}  # fmt: skip
RANGES = {
    "SOLVER.MAX_ITER": (0, None),
    "SOLVER.IMS_PER_BATCH": (1, None),
    "SOLVER.ACCUMULATE": (1, None),
    "SOLVER.REFERENCE_BATCH": (0, None),
    "SOLVER.CHECKPOINT_PERIOD": (0, None),
    "SOLVER.WARMUP_ITERS": (0, None),
    "SOLVER.WARMUP_EPOCHS": (0, None),
    "SOLVER.TRUNK_LR_FACTOR": (0, None),
    "SOLVER.WEIGHT_DECAY": (0, None),
    "DATALOADER.NUM_WORKERS": (0, None),
    "DATALOADER.SKIP_BAD_IMAGES": (0, None),
    "MODEL.NUM_CLASSES": (0, None),
    "MODEL.RESNETS.STEM_OUT_CHANNELS": (0, None),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": (0, None),
    "TEST.EVAL_PERIOD": (0, None),
    "TEST.EARLY_STOP": (0, None),
    "TEST.IMS_PER_BATCH": (1, None),
    "TEST.IMAGE_SIZE": (0, None),
    "INPUT.REPEATS": (1, None),
    "INPUT.FLIP": (0, 1),
    "INPUT.ERASING": (0, 1),
    "INPUT.MIXUP": (0, None),
    "INPUT.CUTMIX": (0, None),
    "INPUT.RAND_AUGMENT.OPS": (0, None),
    "INPUT.RAND_AUGMENT.MAGNITUDE": (0, 30),
}

logger = logging.getLogger(__name__)


def check_recipe(cfg: CfgNode) -> None:
    """Refuse what cannot train on this many processes, before anything is read.

    Raises:
        ConfigError: naming the key, its value and the remedy.
    """
    check_ranges(cfg, RANGES)
    solver, batch = cfg.SOLVER, cfg.INPUT
    parse_name(cfg.MODEL.NAME)
    preprocessing(cfg)
    image_sizes(cfg)
    if not solver.EPOCHS > 0 and not solver.MAX_ITER:
        raise ConfigError(f"SOLVER.EPOCHS must be above 0, got {solver.EPOCHS}.")
    if not 0 <= solver.EMA.DECAY < 1:
        raise ConfigError(f"SOLVER.EMA.DECAY must be at least 0 (off) and below 1, got {solver.EMA.DECAY}.")
    parts = comm.get_world_size() * solver.ACCUMULATE
    if solver.IMS_PER_BATCH % parts:
        nearest = max(solver.IMS_PER_BATCH // parts, 1) * parts
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} cannot be divided among {comm.get_world_size()} processes "
            f"times "
            f"SOLVER.ACCUMULATE {solver.ACCUMULATE}: give a multiple of {parts}, such as {nearest}."
        )
    norm = cfg.MODEL.RESNETS.NORM
    if norm not in NORMS:
        raise ConfigError(f"MODEL.RESNETS.NORM '{norm}' cannot be trained from scratch: use one of {', '.join(NORMS)}.")
    if norm == "BN" and parts == solver.IMS_PER_BATCH:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} leaves BN one image at a time, of which there are no "
            "statistics: give more, or MODEL.RESNETS.NORM GN."
        )
    if "SyncBN" in (norm, cfg.MODEL.GATE.NORM) and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("SyncBN works on GPUs only, and this run is on the CPU: use BN or GN there.")
    if batch.AUGMENT_ON not in AUGMENT_ON:
        raise ConfigError(f"INPUT.AUGMENT_ON '{batch.AUGMENT_ON}' is unknown: use one of {', '.join(AUGMENT_ON)}.")
    for key, low, high in (("SCALE", 0, 1), ("RATIO", 0, float("inf"))):
        value = list(batch[key])
        if len(value) != 2 or not low < value[0] <= value[1] <= high:
            raise ConfigError(f"INPUT.{key} {value} must be two numbers that rise, above {low}.")
    ClassificationLoss(name=solver.LOSS, smoothing=solver.LABEL_SMOOTHING)


def epochs_to_steps(cfg: CfgNode, images: int) -> CfgNode:
    """A copy of `cfg` whose MAX_ITER, STEPS, WARMUP_ITERS and periods are in steps, where they were in epochs."""
    cfg = cfg.clone()
    cfg.defrost()
    solver = cfg.SOLVER
    epoch = steps_per_epoch(cfg, images)
    solver.MAX_ITER = solver.MAX_ITER or max(round(solver.EPOCHS * epoch), 1)
    solver.STEPS = list(solver.STEPS) or [max(round(e * epoch), 1) for e in solver.EPOCH_STEPS]
    solver.WARMUP_ITERS = solver.WARMUP_ITERS or round(solver.WARMUP_EPOCHS * epoch)
    solver.CHECKPOINT_PERIOD = solver.CHECKPOINT_PERIOD or max(round(epoch), 1)
    cfg.TEST.EVAL_PERIOD = cfg.TEST.EVAL_PERIOD or max(round(epoch), 1)
    return cfg


def steps_per_epoch(cfg: CfgNode, images: int) -> float:
    """How many steps take as many samples as there are images: a fraction, as a batch may reach into the next epoch."""
    return images / cfg.SOLVER.IMS_PER_BATCH


def image_sizes(cfg: CfgNode) -> ImageSizes:
    """The side of training crops by epoch.

    Raises:
        ConfigError: INPUT.SIZES is not a list of pairs.
    """
    try:
        steps = tuple((float(epoch), int(size)) for epoch, size in cfg.INPUT.SIZES)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"INPUT.SIZES {cfg.INPUT.SIZES} must be [[epoch, size], ...].") from error
    return ImageSizes(cfg.INPUT.IMAGE_SIZE, steps)


def build_augmentation(cfg: CfgNode):
    """What follows the crop."""
    mean = list(cfg.MODEL.PIXEL_MEAN)
    return augmentation(
        flip=cfg.INPUT.FLIP,
        operations=cfg.INPUT.RAND_AUGMENT.OPS,
        magnitude=cfg.INPUT.RAND_AUGMENT.MAGNITUDE,
        erasing=cfg.INPUT.ERASING,
        fill=mean if cfg.INPUT.FORMAT == "RGB" else mean[::-1],
    )


def build_train_pipeline(cfg: CfgNode, images: ClassificationDataset, seed: int) -> TrainPipeline:
    """How the workers look at the training images."""
    return TrainPipeline(
        seed=seed,
        ims_per_batch=cfg.SOLVER.IMS_PER_BATCH,
        steps_per_epoch=steps_per_epoch(cfg, len(images)),
        sizes=image_sizes(cfg),
        crop=RandomCrop(scale=cfg.INPUT.SCALE, ratio=cfg.INPUT.RATIO),
        augment=build_augmentation(cfg) if cfg.INPUT.AUGMENT_ON == "worker" else None,
    )


def build_classifier(cfg: CfgNode) -> Classifier:
    """The recipe's model with random weights.

    Raises:
        ConfigError: the name is unknown, or the host has not all the options that the recipe sets.
    """
    try:
        return create_model(cfg.MODEL.NAME, num_classes=cfg.MODEL.NUM_CLASSES, **model_options(cfg))
    except TypeError as error:
        raise ConfigError(f"MODEL.NAME {cfg.MODEL.NAME} does not have what the recipe asks for: {error}.") from error


def build_mixing(cfg: CfgNode):
    """What mixes the images of a batch, or None."""
    return mixing(mixup=cfg.INPUT.MIXUP, cutmix=cfg.INPUT.CUTMIX, num_classes=cfg.MODEL.NUM_CLASSES)


def build_objective(cfg: CfgNode, classifier: nn.Module, seed: int) -> Objective:
    """What a step minimises; `seed` is the run's."""
    return Objective(
        classifier,
        loss=ClassificationLoss(name=cfg.SOLVER.LOSS, smoothing=cfg.SOLVER.LABEL_SMOOTHING),
        mean=cfg.MODEL.PIXEL_MEAN,
        std=cfg.MODEL.PIXEL_STD,
        format=cfg.INPUT.FORMAT,
        mixing=build_mixing(cfg),
        augment=build_augmentation(cfg) if cfg.INPUT.AUGMENT_ON == "device" else None,
        seed=seed,
        channels_last=cfg.MODEL.CHANNELS_LAST,
    )
