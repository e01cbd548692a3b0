"""Detectron2's keys of the keypoint head."""

from __future__ import annotations

from fvcore.common.config import CfgNode


def add_keypoint_keys(cfg: CfgNode) -> None:
    """Add MODEL.ROI_KEYPOINT_HEAD; MODEL.KEYPOINT_ON turns it on."""
    cfg.MODEL.ROI_KEYPOINT_HEAD = head = type(cfg)()
    head.NAME = "KRCNNConvDeconvUpsampleHead"
    head.POOLER_RESOLUTION = 14
    head.POOLER_SAMPLING_RATIO = 0
    head.POOLER_TYPE = "ROIAlignV2"
    head.CONV_DIMS = (512,) * 8
    head.NUM_KEYPOINTS = 17  # taken from the annotation file when there is one
    # Images with fewer labelled keypoints are not trained on; how many is logged.
    head.MIN_KEYPOINTS_PER_IMAGE = 1
    # The loss is divided by the number of labelled keypoints in it; or, if False, by the number of keypoints that there
    # could be (keypoints x images x sampled boxes x share of positives), which wants a LOSS_WEIGHT of about 4.
    head.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS = True
    head.LOSS_WEIGHT = 1.0
