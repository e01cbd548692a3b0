"""FCOS, which Detectron2 has without a YAML config: its class is called with our keys."""

from __future__ import annotations

import torch
from torch import nn

from .family import GATES, PADDINGS, SLIM_TRUNK, Family


def wider_boxes(model: nn.Module) -> None:
    """Sides far enough from their cell for boxes that are not empty."""
    with torch.no_grad():
        model.head.bbox_pred.bias.add_(2.0)


FAMILY = Family(
    config="configs/fcos_se_r50_fpn.yaml",
    keys=[*SLIM_TRUNK, "MODEL.FCOS.NUM_CLASSES", 5, "MODEL.FCOS.NUM_CONVS", 2],
    own_resnet=False,
    adjust=wider_boxes,
    axes=[
        GATES,
        PADDINGS,
        [["MODEL.FCOS.NORM", norm] for norm in ("", "GN", "BN")],
        [["MODEL.FCOS.NUM_CONVS", count] for count in (1, 2, 4)],
        [["MODEL.FCOS.POS_RADIUS", radius] for radius in (1.0, 1.5, 2.5)],
        [["MODEL.FCOS.INFERENCE_TH_TEST", score] for score in (0.05, 0.2)],
        [["MODEL.FCOS.PRE_NMS_TOPK_TEST", count] for count in (30, 1000)],
        [["MODEL.FCOS.NMS_TH", iou] for iou in (0.5, 0.6)],
        [["MODEL.RESNETS.NORM", norm] for norm in ("FrozenBN", "BN")],
        [["MODEL.FPN.NORM", norm, "MODEL.FPN.FUSE_TYPE", fuse] for norm, fuse in (("", "sum"), ("GN", "avg"))],
        [["MODEL.FCOS.LOSS_GAMMA", gamma, "MODEL.FCOS.LOSS_ALPHA", alpha]
         for gamma, alpha in ((2.0, 0.25), (1.5, -1.0))],
    ],
    golden={
        "plain": ["MODEL.GATE.NAME", "none"],
        "se_squeeze": ["MODEL.GATE.PADDING", "squeeze", "MODEL.FCOS.INFERENCE_TH_TEST", 0.05],
    },
)  # fmt: skip
