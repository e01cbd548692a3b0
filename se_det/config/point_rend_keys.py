"""The keys of Detectron2's PointRend project (`add_pointrend_config`) that are about the mask head."""

from __future__ import annotations

from fvcore.common.config import CfgNode


def add_point_rend_keys(cfg: CfgNode) -> None:
    """Add MODEL.POINT_HEAD, and to MODEL.ROI_MASK_HEAD what PointRendMaskHead reads besides."""
    mask = cfg.MODEL.ROI_MASK_HEAD
    # PointRendMaskHead: the maps, out of MODEL.ROI_HEADS.IN_FEATURES, that the coarse masks are made of.
    mask.IN_FEATURES = ("p2",)
    mask.FC_DIM = 1024
    mask.NUM_FC = 2
    mask.OUTPUT_SIDE_RESOLUTION = 7  # cells a side of a coarse mask
    mask.POINT_HEAD_ON = False  # False: the coarse masks are the result
    cfg.MODEL.POINT_HEAD = point = type(cfg)()
    point.NAME = "StandardPointHead"
    point.NUM_CLASSES = 80  # follows MODEL.ROI_HEADS.NUM_CLASSES
    point.IN_FEATURES = ("p2",)  # maps that points are read from
    point.TRAIN_NUM_POINTS = 14 * 14  # in a box
    # Of so many times as many points the most uncertain are taken, for this share of those that are trained on.
    point.OVERSAMPLE_RATIO = 3
    point.IMPORTANCE_SAMPLE_RATIO = 0.75
    # Inference doubles a mask's resolution so often, and looks at so many points anew each time.
    point.SUBDIVISION_STEPS = 5
    point.SUBDIVISION_NUM_POINTS = 28 * 28
    point.FC_DIM = 256
    point.NUM_FC = 3
    point.CLS_AGNOSTIC_MASK = False
    # PointRendSemSegHead (MODEL.SEM_SEG_HEAD.NAME): what it refines; NUM_CLASSES is then MODEL.SEM_SEG_HEAD's.
    point.COARSE_SEM_SEG_HEAD_NAME = "SemSegFPNHead"
    point.COARSE_PRED_EACH_LAYER = True  # every layer of the point head reads the coarse mask, not the first alone
