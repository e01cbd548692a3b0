"""A proposal network alone."""

from .family import GATES, PADDINGS, SLIM_TRUNK, Family

FAMILY = Family(
    config="configs/rpn_se_r50_fpn.yaml",
    keys=[*SLIM_TRUNK, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 10_000_000, "MODEL.RPN.POSITIVE_FRACTION", 1.0],
    axes=[
        GATES,
        PADDINGS,
        [["MODEL.RPN.CONV_DIMS", dims] for dims in ([-1], [24, 16])],
        [["MODEL.RPN.BBOX_REG_LOSS_TYPE", kind, "MODEL.RPN.SMOOTH_L1_BETA", beta]
         for kind, beta in (("smooth_l1", 0.0), ("smooth_l1", 0.1), ("giou", 0.0))],
        [["MODEL.RPN.POST_NMS_TOPK_TEST", count] for count in (50, 1000)],
        [["MODEL.RPN.NMS_THRESH", iou] for iou in (0.5, 0.7)],
        [["MODEL.PROPOSAL_GENERATOR.MIN_SIZE", size] for size in (0, 8)],
    ],
    golden={"se": ["MODEL.RPN.POST_NMS_TOPK_TEST", 50]},
)  # fmt: skip
