"""What a family of models is: a config, what may vary in it, and how both engines' numbers are compared.

A new family is a file beside this one with a `FAMILY`. `python tests/integrations/random_configs.py` then draws configs
of it and compares them with Detectron2, `tests/integrations/make_family_golden.py` writes what Detectron2 computes on
its `golden` cases, and tests/detection/test_golden_families.py holds the builtin engine to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from se_det.config import load_config
from se_det.detection.build import build_detector
from se_det.detection.rcnn import Detector

from ..known_weights import fill, samples

Keys = list[Any]  # key, value, key, value, ...
# Detectron2's own ResNet builder in the place of ours, which has gates.
OWN_RESNET = {
    "build_se_resnet_fpn_backbone": "build_resnet_fpn_backbone",
    "build_se_resnet_retinanet_fpn_backbone": "build_retinanet_resnet_fpn_backbone",
    "build_se_resnet_backbone": "build_resnet_backbone",
}
SLIM_TRUNK = [
    "MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.BACKBONE.FREEZE_AT", 0,
]  # fmt: skip
GATES = [["MODEL.GATE.NAME", name] for name in ("none", "se", "sp_se", "rg_se", "cbam")]
PADDINGS = [["MODEL.GATE.PADDING", name] for name in ("keep", "squeeze")]  # Detectron2's detectors know no exact one


def build_theirs(config: str, keys: Keys, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Detectron2's model of the same config."""
    from se_det.integrations.detectron2_peer import build_peer

    return build_peer(config, keys, state)


@dataclass(frozen=True, kw_only=True)
class Family:
    """See the module.

    Attributes:
        config: a YAML file.
        keys: what all its small models have.
        axes: what varies: one of each is drawn.
        golden: cases whose numbers are kept, by name.
        own_resnet: whether without a gate Detectron2's model has its own ResNet.
        theirs: builds Detectron2's model from config, keys and weights.
        samples: images with their truth.
        adjust: changes known weights, so that something is found.
        tolerances: how far numbers may be apart: "boxes" px, "scores", "losses" and "gradients" as shares.
    """

    config: str
    keys: Keys
    axes: Sequence[Sequence[Keys]] = ()
    golden: Mapping[str, Keys] = field(default_factory=dict)
    own_resnet: bool = True
    theirs: Callable[[str, Keys, Mapping[str, torch.Tensor]], nn.Module] = build_theirs
    samples: Callable[[], list[dict[str, Any]]] = samples
    adjust: Callable[[nn.Module], object] = lambda model: None
    tolerances: Mapping[str, float] = field(
        default_factory=lambda: {"boxes": 1e-2, "scores": 1e-4, "masks": 1e-3, "losses": 1e-4, "gradients": 1e-3}
    )

    def build_ours(self, case: Keys = ()) -> Detector:
        """The builtin engine's model with known weights, in evaluation mode."""
        model = fill(build_detector(load_config(self.config, [*self.keys, *case])))
        self.adjust(model)
        return model.eval()

    def build_pair(self, case: Keys = ()) -> tuple[Detector, nn.Module]:
        """(ours, theirs), with the same weights, in evaluation mode. Without a gate their ResNet is their own."""
        ours, keys = self.build_ours(case), [*self.keys, *case]
        cfg = load_config(self.config, keys)
        if self.own_resnet and cfg.MODEL.GATE.NAME == "none" and cfg.MODEL.BACKBONE.NAME in OWN_RESNET:
            keys += ["MODEL.BACKBONE.NAME", OWN_RESNET[cfg.MODEL.BACKBONE.NAME]]
        return ours, self.theirs(self.config, keys, ours.state_dict()).eval()
