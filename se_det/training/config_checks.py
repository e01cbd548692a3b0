"""Combinations of keys that cannot train, refused before anything is read or written."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fvcore.common.config import CfgNode

from ..config.loading import get_key
from ..config.validation import check_ranges, validate_config
from ..detection.bottom_up import gate_name
from ..detection.registry import model_facts
from ..errors import ConfigError, suggestion
from .optimizer import CLIP_TYPES

FEW_IMAGES = 8  # below this many, batch statistics of a gate's (N, C, 1, 1) map are mostly noise
GATES_WITH_NORM_OF_ONE_CELL = ("sp_se", "rg_se")
GATES_WITH_NORM = ("sp_se", "rg_se", "cbam")
# What only training needs in range, as in `config.validation.RANGES`.
RANGES = {
    "SOLVER.MAX_ITER": (1, None),
    "SOLVER.IMS_PER_BATCH": (1, None),
    "SOLVER.ACCUMULATE": (1, None),
    "SOLVER.REFERENCE_BATCH": (0, None),
    "SOLVER.CHECKPOINT_PERIOD": (0, None),
    "DATALOADER.NUM_WORKERS": (0, None),
    "DATALOADER.SKIP_BAD_IMAGES": (0, None),
    "TEST.EVAL_PERIOD": (0, None),
    "TEST.EARLY_STOP": (0, None),
}

logger = logging.getLogger(__name__)


def check_training(cfg: CfgNode, world_size: int) -> None:
    """Refuse what cannot train on `world_size` processes on cfg.MODEL.DEVICE; warn of what is unlikely to train well.

    Raises:
        ConfigError: naming the keys, their values and the remedy.
    """
    validate_config(cfg)
    _check_numbers(cfg)
    _check_batch(cfg, world_size)
    _check_frozen(cfg)
    _check_sync_bn(cfg)
    _check_gate_norm(cfg, world_size)


def gate_norm(cfg: CfgNode) -> str:
    """The norm inside the gates: MODEL.GATE.NORM, or when that is empty the trunk's."""
    return cfg.MODEL.GATE.NORM or cfg.MODEL.RESNETS.NORM


def _check_numbers(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    check_ranges(cfg, RANGES)
    if not 0 <= solver.EMA.DECAY < 1:
        raise ConfigError(f"SOLVER.EMA.DECAY must be at least 0 (off) and below 1, got {solver.EMA.DECAY}.")
    if solver.CLIP_GRADIENTS.ENABLED and solver.CLIP_GRADIENTS.CLIP_TYPE not in CLIP_TYPES:
        raise ConfigError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE '{solver.CLIP_GRADIENTS.CLIP_TYPE}' is unknown: use one of "
            f"{', '.join(CLIP_TYPES)}."
        )
    if cfg.TEST.EARLY_STOP and not cfg.TEST.EVAL_PERIOD:
        raise ConfigError(
            f"TEST.EARLY_STOP is {cfg.TEST.EARLY_STOP} and TEST.EVAL_PERIOD is 0, so nothing is evaluated before the "
            "end: set TEST.EVAL_PERIOD to a number of steps."
        )


def _check_batch(cfg: CfgNode, world_size: int) -> None:
    images, accumulate = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE
    parts = world_size * accumulate
    if images % parts:
        nearest = max(images // parts, 1) * parts
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {images} cannot be divided among {world_size} process"
            f"{'es' if world_size > 1 else ''} times SOLVER.ACCUMULATE {accumulate}: give a multiple of {parts}, such "
            f"as {nearest}."
        )


def _check_frozen(cfg: CfgNode) -> None:
    if cfg.MODEL.WEIGHTS:
        return
    wrong = []
    if cfg.MODEL.RESNETS.NORM == "FrozenBN":
        wrong.append("MODEL.RESNETS.NORM FrozenBN")
    if cfg.MODEL.GATE.NORM == "FrozenBN" and gate_name(cfg) in GATES_WITH_NORM:
        wrong.append("MODEL.GATE.NORM FrozenBN")
    if cfg.MODEL.BACKBONE.FREEZE_AT >= 1:
        wrong.append(f"MODEL.BACKBONE.FREEZE_AT {cfg.MODEL.BACKBONE.FREEZE_AT}")
    if wrong:
        raise ConfigError(
            f"{' and '.join(wrong)} would keep random weights as they are, as MODEL.WEIGHTS is empty: give "
            "pretrained weights with MODEL.WEIGHTS <path or zoo://name>, or, to train from scratch, MODEL.RESNETS.NORM "
            "GN (or BN) and MODEL.BACKBONE.FREEZE_AT "
            f"0{' and MODEL.GATE.NORM GN' if 'MODEL.GATE.NORM FrozenBN' in wrong else ''}."
        )


def _check_sync_bn(cfg: CfgNode) -> None:
    if cfg.MODEL.DEVICE != "cpu":
        return
    norms = ["MODEL.RESNETS.NORM", *model_facts(cfg).norms(cfg)]
    norms += ["MODEL.GATE.NORM"] * (gate_name(cfg) in GATES_WITH_NORM)
    keys = [key for key in norms if get_key(cfg, key) == "SyncBN"]
    if keys:
        raise ConfigError(
            f"{' and '.join(keys)} SyncBN works on GPUs only, and this run is on the CPU: use BN or GN there."
        )


def _check_gate_norm(cfg: CfgNode, world_size: int) -> None:
    gate = gate_name(cfg)
    norm = gate_norm(cfg)
    if gate not in GATES_WITH_NORM_OF_ONE_CELL or norm not in ("BN", "SyncBN"):
        return
    # SyncBN's statistics are over all processes' images.
    images = cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.ACCUMULATE // (world_size if norm == "BN" else 1)
    key = "MODEL.GATE.NORM" if cfg.MODEL.GATE.NORM else "MODEL.GATE.NORM (empty, so MODEL.RESNETS.NORM)"
    named = "MODEL.GATE.NAME" if gate == cfg.MODEL.GATE.NAME else f"the gate of {cfg.MODEL.BACKBONE.NAME}"
    told = (
        f"{key} is {norm} and {named} is {gate}, whose norm sees one cell per image: with "
        f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} on {world_size} process{'es' if world_size > 1 else ''} in "
        f"{cfg.SOLVER.ACCUMULATE} part{'s' if cfg.SOLVER.ACCUMULATE > 1 else ''} it has {images} "
        f"image{'s' if images > 1 else ''} at a time"
    )
    remedy = f"set MODEL.GATE.NORM GN, or give it {FEW_IMAGES} images or more"
    if images == 1:
        raise ConfigError(f"{told}, of which there are no statistics: {remedy}.")
    if images < FEW_IMAGES:
        logger.warning("%s, whose statistics are mostly noise: %s.", told, remedy)


def check_best_metric(metric: str, known: Sequence[str]) -> None:
    """Refuse a TEST.BEST_METRIC that no evaluation will give, before hours of training have passed.

    Args:
        metric: the key's value; "" is always good.
        known: what evaluation will give, at least three.

    Raises:
        ConfigError: naming some that there will be.
    """
    if metric and metric not in known:
        raise ConfigError(
            f"TEST.BEST_METRIC '{metric}' is not a metric of this evaluation, which has {', '.join(known[:3])}, ...."
            f"{suggestion(metric, known)}"
        )
