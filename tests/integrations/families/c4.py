"""R-CNN whose RoI heads are res5 of the trunk."""

from ..known_weights import SAMPLE_ALL
from .family import GATES, PADDINGS, SLIM_TRUNK, Family

FAMILY = Family(
    config="configs/faster_rcnn_se_r50_c4.yaml",
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
