"""From a config to the parts of a run: the one place that reads the solver's keys."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from .. import comm
from ..config import provenance
from ..config.loading import flatten, parse_yaml
from ..config.resolution import Decision
from ..data.coco_dataset import CocoDataset
from ..device import select_device
from ..errors import ConfigError
from ..layers.half_precision import multiplies_in
from .datasets import class_image_counts
from .ema import EMA
from .optimizer import build_optimizer, clip_gradients
from .precision import DTYPES, Precision
from .schedule import LearningRate, scaled_base_lr, schedule_warnings

PRECISIONS = ("", "highest", "high", "medium")

logger = logging.getLogger(__name__)


def decide_device(cfg: CfgNode) -> tuple[torch.device, list[Decision]]:
    """The device of this process, see `select_device`, and what MODEL.DEVICE is by it."""
    device = select_device(cfg.MODEL.DEVICE)
    kind = cfg.MODEL.DEVICE.partition(":")[0]
    reason = "there is no GPU" if kind in ("cuda", "cpu") else f"there is no {kind} device"
    decided = [Decision("MODEL.DEVICE", "cpu", "this machine", reason)] if device.type == "cpu" else []
    return device, decided


def decide_precision(
    cfg: CfgNode, device: torch.device, saved: str | None = None, path: Path | None = None
) -> list[Decision]:
    """What SOLVER.AMP.ENABLED is where the user did not say: a shipped config's choice gives way to float32 on a device
    that does not multiply in its type, and that of a resumed run goes on. The user's is kept, and warned of.

    Args:
        saved: the config of the run that is resumed from `path`, as YAML.
    """
    amp, decided = cfg.SOLVER.AMP, []
    enabled, slow = amp.ENABLED, amp.DTYPE in DTYPES and not multiplies_in(amp.DTYPE, device)
    lacks = f"{'CPU' if device.type == 'cpu' else 'GPU'} does not multiply in {amp.DTYPE}"
    if provenance.key_source(cfg, "SOLVER.AMP.ENABLED") is None:
        if saved is not None:
            enabled = bool(dict(flatten(parse_yaml(saved, str(path)))).get("SOLVER.AMP.ENABLED", enabled))
            decided = [Decision("SOLVER.AMP.ENABLED", enabled, str(path), "what the run started with")]
        elif slow:
            enabled = False
            decided = [Decision("SOLVER.AMP.ENABLED", enabled, "this machine", f"its {lacks}")]
    if enabled and slow:
        logger.warning(
            "SOLVER.AMP.ENABLED is True, but this machine's %s: a step may take ten times as long as in float32. "
            "Float32 is SOLVER.AMP.ENABLED False.",
            lacks,
        )
    return decided


def set_backend_flags(cfg: CfgNode) -> None:
    """CUDNN_BENCHMARK and FLOAT32_PRECISION, which are settings of the whole process.

    On a GPU float32 is TF32 unless FLOAT32_PRECISION says "highest". On a CPU nothing is set where it says nothing.

    Raises:
        ConfigError: an unknown precision.
    """
    if cfg.FLOAT32_PRECISION not in PRECISIONS:
        raise ConfigError(
            f"FLOAT32_PRECISION '{cfg.FLOAT32_PRECISION}' is unknown: leave it empty or use one of "
            f"{', '.join(PRECISIONS[1:])}."
        )
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    wanted = cfg.FLOAT32_PRECISION or ("high" if on_gpu else "")
    if wanted:
        torch.set_float32_matmul_precision(wanted)
    if on_gpu:  # convolutions have a switch of their own
        torch.backends.cudnn.allow_tf32 = wanted != "highest"
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def base_learning_rate(cfg: CfgNode) -> float:
    """SOLVER.BASE_LR scaled to the number of images per step (logged)."""
    solver = cfg.SOLVER
    if not solver.BASE_LR > 0:
        raise ConfigError(f"SOLVER.BASE_LR must be above 0, got {solver.BASE_LR}.")
    base_lr = scaled_base_lr(solver.BASE_LR, solver.IMS_PER_BATCH, solver.REFERENCE_BATCH)
    if base_lr != solver.BASE_LR:
        logger.info(
            "SOLVER.BASE_LR %g is for SOLVER.REFERENCE_BATCH %d images per step; for SOLVER.IMS_PER_BATCH %d it is %g.",
            solver.BASE_LR, solver.REFERENCE_BATCH, solver.IMS_PER_BATCH, base_lr,
        )  # fmt: skip
    return base_lr


def learning_rate(cfg: CfgNode) -> LearningRate:
    """The schedule, with BASE_LR scaled to the number of images per step."""
    solver = cfg.SOLVER
    rate = LearningRate(
        base_lr=base_learning_rate(cfg),
        max_iter=solver.MAX_ITER,
        name=solver.LR_SCHEDULER_NAME,
        steps=tuple(solver.STEPS),
        gamma=solver.GAMMA,
        end_factor=solver.BASE_LR_END / solver.BASE_LR if solver.BASE_LR > 0 else 0.0,
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_method=solver.WARMUP_METHOD,
    )
    for sentence in schedule_warnings(rate):
        logger.warning(sentence)
    if 0 < solver.MAX_ITER < cfg.TEST.EVAL_PERIOD:
        logger.warning(
            "TEST.EVAL_PERIOD %d exceeds SOLVER.MAX_ITER %d: evaluation runs only at the end%s.",
            cfg.TEST.EVAL_PERIOD, solver.MAX_ITER, ", and TEST.EARLY_STOP has no effect" if cfg.TEST.EARLY_STOP else "",
        )  # fmt: skip
    return rate


def fill_class_weights(cfg: CfgNode, model: nn.Module, train: Sequence[CocoDataset]) -> None:
    """With MODEL.ROI_BOX_HEAD.USE_FED_LOSS: give a fresh detector the weights by which classes are drawn for its loss.
    A class that no image has counts as if one had."""
    if not cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS or not hasattr(model, "roi_heads"):
        return
    counts = torch.from_numpy(class_image_counts(train)).clamp(min=1).float()
    weights = counts**cfg.MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER
    for _, predictor in model.roi_heads.box_stages:
        predictor.fed_loss_cls_weights.copy_(weights)


def optimizer(
    cfg: CfgNode,
    model: nn.Module,
    *,
    base_lr: float,
    scaled: bool,
    lr_factors: Mapping[nn.Parameter, float] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser of what `model` trains; `scaled` says whether its loss is, `lr_factors` what has other rates."""
    solver = cfg.SOLVER
    return build_optimizer(
        model,
        name=solver.OPTIMIZER,
        base_lr=base_lr,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        lr_factors=lr_factors,
        fused=not scaled,
    )


def gradient_clip(cfg: CfgNode, model: nn.Module) -> Callable[[], None] | None:
    """What limits the gradients of `model`, or None."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return None
    parameters = [p for p in model.parameters() if p.requires_grad]
    return lambda: clip_gradients(
        parameters, clip_type=clip.CLIP_TYPE, clip_value=clip.CLIP_VALUE, norm_type=clip.NORM_TYPE
    )


def precision(cfg: CfgNode, device: torch.device) -> Precision:
    """The arithmetic that SOLVER.AMP asks for."""
    amp = cfg.SOLVER.AMP
    return Precision(enabled=amp.ENABLED, dtype=amp.DTYPE, device_type=device.type)


def build_ema(cfg: CfgNode, model: nn.Module) -> EMA | None:
    """The average of the weights of `model` that SOLVER.EMA asks for, or None."""
    return EMA(model, decay=cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.DECAY else None


def decide_seed(cfg: CfgNode, saved: int | None, path: Path | None) -> list[Decision]:
    """The run's seed: the given one, that of the run resumed from `path`, or one drawn."""
    if cfg.SEED >= 0:
        return []
    if saved is not None:
        return [Decision("SEED", saved, str(path), "the run's own")]
    drawn = comm.broadcast_object(int.from_bytes(os.urandom(4), "little") >> 1)
    return [Decision("SEED", drawn, "this run", "drawn, as none was given")]
