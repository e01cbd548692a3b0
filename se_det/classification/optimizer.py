"""The optimiser of pretraining: the detector's, with a slower trunk where that starts from weights."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..training import build as parts
from ..training.optimizer import set_learning_rate
from .build import logger

HEAD = "linear."


def build_pretraining_optimizer(
    cfg: CfgNode, model: nn.Module, *, base_lr: float, scaled: bool, pretrained: bool
) -> torch.optim.Optimizer:
    """SGD or AdamW over `model`; with `pretrained` the layers below the classifier learn TRUNK_LR_FACTOR as fast."""
    optimizer = parts.optimizer(cfg, model, base_lr=base_lr, scaled=scaled)
    factor = cfg.SOLVER.TRUNK_LR_FACTOR
    if factor == 1.0:
        return optimizer
    if not pretrained:
        logger.info("SOLVER.TRUNK_LR_FACTOR %g (--lrp) is for layers that start from weights, and none do.", factor)
        return optimizer
    head = {id(p) for name, p in model.named_parameters() if name.startswith(HEAD)}
    for group in list(optimizer.param_groups):
        trunk = [p for p in group["params"] if id(p) not in head]
        rest = [p for p in group["params"] if id(p) in head]
        slower = {"lr_factor": group["lr_factor"] * factor}
        if not rest:
            group.update(slower)
        elif trunk:
            group["params"] = rest
            optimizer.add_param_group({**{k: v for k, v in group.items() if k != "params"}, "params": trunk, **slower})
    set_learning_rate(optimizer, base_lr)
    return optimizer
