"""The weights that all rows of a study begin with: the random ones of the first row, wherever another has the same.

A gate draws from the same stream of random numbers as the layers after it, so that of two networks with the same seed
the trunks begin otherwise alike in nothing. Here each has its own gates, and all else from the first row's network.
"""

from __future__ import annotations

from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..classification.build import build_classifier
from ..classification.resolve import resolve_pretraining
from ..config.loading import set_key
from ..detection.build import build_detector
from ..training.resolve import resolve_training

FILE = "start.pth"  # in a run's folder, until the run has begun


def resolved(kind: str, cfg: CfgNode) -> CfgNode:
    """The config as it would be run, with its number of classes.

    Raises:
        SeDetError: what it names cannot be had, or cannot be trained.
    """
    return (resolve_training if kind == "train" else resolve_pretraining)(cfg)[0]


def build_network(kind: str, cfg: CfgNode) -> nn.Module:
    """The network of a resolved config, with the random weights of its SEED."""
    torch.manual_seed(cfg.SEED)
    return build_detector(cfg) if kind == "train" else build_classifier(cfg)


def common_start(kind: str, cfg: CfgNode, first: CfgNode) -> dict[str, torch.Tensor]:
    """The first weights of a run of `cfg`: those of `first` where names and shapes are the same, else its own."""
    own = build_network(kind, resolved(kind, cfg)).state_dict()
    theirs = build_network(kind, resolved(kind, first)).state_dict()
    return {
        name: theirs[name] if name in theirs and theirs[name].shape == tensor.shape else tensor
        for name, tensor in own.items()
    }


def with_common_start(kind: str, cfg: CfgNode, first: CfgNode, path: Path) -> CfgNode:
    """`cfg` starting from a file at `path`, which is written with what `common_start` gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": common_start(kind, cfg, first)}, path)
    cfg = cfg.clone()
    cfg.defrost()
    set_key(cfg, "MODEL.WEIGHTS", str(path))
    return cfg
