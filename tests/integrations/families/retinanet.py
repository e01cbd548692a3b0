"""RetinaNet."""

from .family import GATES, PADDINGS, SLIM_TRUNK, Family

SIZES = [[[x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)] for x in (16, 32, 64, 128, 256)]]
FAMILY = Family(
    config="configs/retinanet_se_r50_fpn.yaml",
    keys=[*SLIM_TRUNK, "MODEL.RETINANET.NUM_CLASSES", 5, "MODEL.RETINANET.NUM_CONVS", 2,
          "MODEL.ANCHOR_GENERATOR.SIZES", SIZES[0]],
    axes=[
        GATES,
        PADDINGS,
        [["MODEL.RETINANET.NORM", norm] for norm in ("", "GN", "BN")],
        [["MODEL.RETINANET.BBOX_REG_LOSS_TYPE", kind, "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", beta]
         for kind, beta in (("smooth_l1", 0.0), ("smooth_l1", 0.1), ("giou", 0.1), ("diou", 0.1), ("ciou", 0.1))],
        [["MODEL.RESNETS.NORM", norm] for norm in ("FrozenBN", "BN")],
        [["MODEL.RETINANET.NUM_CONVS", count] for count in (1, 2, 4)],
        [["MODEL.RETINANET.TOPK_CANDIDATES_TEST", count] for count in (30, 1000)],
        [["MODEL.RETINANET.SCORE_THRESH_TEST", score] for score in (0.05, 0.2)],
        [["MODEL.RETINANET.IOU_THRESHOLDS", [0.4, 0.5]], ["MODEL.RETINANET.IOU_THRESHOLDS", [0.5, 0.5]]],
        [["MODEL.FPN.NORM", norm, "MODEL.FPN.FUSE_TYPE", fuse] for norm, fuse in (("", "sum"), ("GN", "avg"))],
        [["MODEL.RETINANET.FOCAL_LOSS_GAMMA", gamma, "MODEL.RETINANET.FOCAL_LOSS_ALPHA", alpha]
         for gamma, alpha in ((2.0, 0.25), (1.5, -1.0), (0.0, 0.5))],
    ],
    golden={
        "plain": ["MODEL.GATE.NAME", "none"],
        "rg_se_gn": ["MODEL.GATE.NAME", "rg_se", "MODEL.RETINANET.NORM", "GN", "MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
                     "giou", "MODEL.GATE.PADDING", "squeeze"],
        "level_norms": ["MODEL.RETINANET.NORM", "BN", "MODEL.RETINANET.TOPK_CANDIDATES_TEST", 50],
    },
)  # fmt: skip
