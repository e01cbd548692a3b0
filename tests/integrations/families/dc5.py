"""R-CNN on a dilated res5, and deformable convolutions."""

from ..known_weights import SAMPLE_ALL
from .family import GATES, PADDINGS, SLIM_TRUNK, Family

# Detectron2 has the modulated ones for GPUs only, and on CPUs refuses several groups of offsets.
DEFORMABLE = ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]]
FAMILY = Family(
    config="configs/faster_rcnn_se_r50_dc5.yaml",
    keys=[*SLIM_TRUNK, *SAMPLE_ALL, "MODEL.ROI_HEADS.NUM_CLASSES", 5, "MODEL.ROI_BOX_HEAD.FC_DIM", 64,
          "TEST.DETECTIONS_PER_IMAGE", 30,
          "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 200, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50,
          "MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 50,
          "MODEL.ANCHOR_GENERATOR.SIZES", [[32, 64, 128]]],
    axes=[
        [[], DEFORMABLE],
        GATES,
        PADDINGS,
        [["MODEL.RESNETS.RES5_DILATION", value] for value in (1, 2)],
        [["MODEL.RESNETS.STRIDE_IN_1X1", value] for value in (True, False)],
        [["MODEL.RESNETS.NUM_GROUPS", groups, "MODEL.RESNETS.WIDTH_PER_GROUP", width] for groups, width in
         ((1, 16), (4, 4))],
    ],
    golden={"plain": ["MODEL.GATE.NAME", "none"], "deformable": [*DEFORMABLE, "MODEL.RESNETS.DEFORM_NUM_GROUPS", 2]},
)  # fmt: skip
