"""The keys of one-stage detectors with their defaults: Detectron2's MODEL.RETINANET, and MODEL.FCOS, which is ours."""

from __future__ import annotations

from fvcore.common.config import CfgNode


def add_retinanet_keys(cfg: CfgNode) -> None:
    """Detectron2's section, as its own config has it."""
    c = cfg.MODEL.RETINANET = CfgNode()
    c.NUM_CLASSES = 80  # taken from the annotation file when there is one
    c.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    c.NUM_CONVS = 4  # of each of the two towers
    c.NORM = ""  # in the towers: "", BN, SyncBN (statistics for each level), FrozenBN, GN
    c.IOU_THRESHOLDS = [0.4, 0.5]
    c.IOU_LABELS = [0, -1, 1]
    c.PRIOR_PROB = 0.01  # of each class at the start
    c.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
    c.BBOX_REG_LOSS_TYPE = "smooth_l1"  # smooth_l1, giou, diou, ciou
    c.SMOOTH_L1_LOSS_BETA = 0.1
    c.FOCAL_LOSS_ALPHA = 0.25
    c.FOCAL_LOSS_GAMMA = 2.0
    c.SCORE_THRESH_TEST = 0.05
    c.TOPK_CANDIDATES_TEST = 1000  # of each level, before NMS
    c.NMS_THRESH_TEST = 0.5


def add_fcos_keys(cfg: CfgNode) -> None:
    """FCOS as Detectron2 has it (`modeling/meta_arch/fcos.py`), which has no keys there. Names are AdelaiDet's where it
    has one for the same thing."""
    c = cfg.MODEL.FCOS = type(cfg)()
    c.NUM_CLASSES = 80  # taken from the annotation file when there is one
    c.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    c.NUM_CONVS = 4  # of each of the two towers
    c.NORM = "GN"  # in the towers: "", BN, SyncBN (statistics for each level), FrozenBN, GN
    c.PRIOR_PROB = 0.01  # of each class at the start
    c.POS_RADIUS = 1.5  # cells nearer than this many strides to an object's centre, both ways, are positive
    c.LOSS_ALPHA = 0.25  # of the focal loss
    c.LOSS_GAMMA = 2.0
    c.INFERENCE_TH_TEST = 0.2  # of sqrt(class score * centreness)
    c.PRE_NMS_TOPK_TEST = 1000  # of each level
    c.NMS_TH = 0.6
    c.CLIP_BEFORE_NMS = False  # cut boxes off at the image's border before NMS, as torchvision does
    c.OFFSET = 0.5  # where in a cell its point is, from 0 (the corner, as in torchvision) to below 1
