"""R-CNN whose RoI heads are res5 of the trunk."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..known_weights import SAMPLE_ALL
from .family import GATES, PADDINGS, SLIM_TRUNK, Family, Keys


def build_theirs(config: str, keys: Keys, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Detectron2's model; with a gate its head has our res5, as its own knows no gates."""
    from detectron2.modeling import build_model

    from se_det.backbones.blocks import Stage
    from se_det.config import load_config
    from se_det.detection.bottom_up import build_res5
    from se_det.integrations.detectron2 import follow_image_sizes
    from se_det.integrations.detectron2_engine import default_config

    class MapAlone(Stage):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[0]

    cfg = load_config(config, keys, defaults=default_config())
    model = build_model(cfg)
    if cfg.MODEL.GATE.NAME != "none":
        model.roi_heads.res5 = MapAlone(*build_res5(cfg)[0])
    model.load_state_dict(dict(state), strict=True)
    return follow_image_sizes(model)


FAMILY = Family(
    config="configs/faster_rcnn_se_r50_c4.yaml",
    theirs=build_theirs,
    keys=[*SLIM_TRUNK, *SAMPLE_ALL, "MODEL.ROI_HEADS.NUM_CLASSES", 5, "MODEL.MASK_ON", True,
          "MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "TEST.DETECTIONS_PER_IMAGE", 30,
          "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 200, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50,
          "MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 50,
          "MODEL.ANCHOR_GENERATOR.SIZES", [[32, 64, 128]]],
    axes=[
        GATES,
        PADDINGS,
        [["MODEL.MASK_ON", value] for value in (True, False)],
        [["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", side] for side in (14, 7)],
        [["MODEL.RESNETS.STRIDE_IN_1X1", value] for value in (True, False)],
        [["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", value] for value in (True, False)],
    ],
    golden={"rg_se": ["MODEL.GATE.NAME", "rg_se"]},
)  # fmt: skip
