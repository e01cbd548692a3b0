"""Learning rates of the pretrained trunk, below those of what is new: SOLVER.BACKBONE_LR_FACTOR and LAYER_DECAY."""

from __future__ import annotations

from collections.abc import Mapping

from fvcore.common.config import CfgNode
from torch import nn

from ..errors import ConfigError


def trunk_factors(cfg: CfgNode, model: nn.Module) -> Mapping[nn.Parameter, float]:
    """Factors of the learning rate by parameter; those that are not named have 1.

    The pyramid is no part of the trunk. Of its n layers, the stem and the blocks, layer i from 0 has the factor
    LAYER_DECAY^(n - i), as in BEiT (arXiv 2106.08254) and Detectron2's ViTDet.

    Raises:
        ConfigError: the model has no trunk whose layers are known.
    """
    factor, decay = cfg.SOLVER.BACKBONE_LR_FACTOR, cfg.SOLVER.LAYER_DECAY
    if factor == decay == 1:
        return {}
    backbone = getattr(model, "backbone", None)
    trunk = getattr(backbone, "bottom_up", backbone)  # a trunk may stand alone
    if not hasattr(trunk, "layers"):
        raise ConfigError(
            f"SOLVER.BACKBONE_LR_FACTOR is {factor} and SOLVER.LAYER_DECAY {decay}, and {cfg.MODEL.BACKBONE.NAME} has "
            "no trunk whose layers are known: set both to 1."
        )
    layers = trunk.layers()
    return {p: factor * decay ** (len(layers) - i) for i, layer in enumerate(layers) for p in layer}
