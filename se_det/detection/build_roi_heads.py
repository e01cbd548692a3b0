"""From a config to the RoI heads and their parts, which are registered here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fvcore.common.config import CfgNode

from ..backbones.fpn import FPN
from ..config.loading import get_key
from ..errors import ConfigError
from .box_head import BoxHead, BoxPredictor
from .cascade import CascadeROIHeads
from .keypoint_head import KeypointHead
from .mask_head import MaskHead
from .point_rend import CoarseHead, PointHead, PointRendMaskHead
from .pooler import POOLER_TYPES, ROIPooler
from .registry import BOX_HEADS, KEYPOINT_HEADS, MAP_READING, MASK_HEADS, POINT_HEADS, ROI_HEADS
from .roi_heads import StandardROIHeads

# The parts of RoI heads.
ROI_PARTS = {
    "MODEL.ROI_BOX_HEAD.NAME": BOX_HEADS,
    "MODEL.ROI_MASK_HEAD.NAME": MASK_HEADS,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": KEYPOINT_HEADS,
    "MODEL.POINT_HEAD.NAME": POINT_HEADS,
}


def _part(cfg: CfgNode, key: str) -> Any:
    return ROI_PARTS[key].get(get_key(cfg, key), key)


@BOX_HEADS.register(name="FastRCNNConvFCHead")
def box_head(cfg: CfgNode, in_channels: int) -> BoxHead:
    """Convolutions, then fully connected layers."""
    box = cfg.MODEL.ROI_BOX_HEAD
    return BoxHead(
        in_channels=in_channels,
        resolution=box.POOLER_RESOLUTION,
        conv_dims=[box.CONV_DIM] * box.NUM_CONV,
        fc_dims=[box.FC_DIM] * box.NUM_FC,
        norm=box.NORM,
    )


@MASK_HEADS.register(name="MaskRCNNConvUpsampleHead")
def mask_head(cfg: CfgNode, in_channels: int) -> MaskHead:
    """Convolutions and a deconvolution."""
    mask = cfg.MODEL.ROI_MASK_HEAD
    return MaskHead(
        in_channels=in_channels,
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        conv_dims=[mask.CONV_DIM] * (mask.NUM_CONV + 1),
        norm=mask.NORM,
        class_agnostic=mask.CLS_AGNOSTIC_MASK,
    )


@POINT_HEADS.register(name="StandardPointHead")
def point_head(cfg: CfgNode, in_channels: int) -> PointHead:
    """The same layers for every point."""
    head = cfg.MODEL.POINT_HEAD
    return PointHead(
        in_channels=in_channels,
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        fc_dims=[head.FC_DIM] * head.NUM_FC,
        class_agnostic=head.CLS_AGNOSTIC_MASK,
        coarse_each_layer=head.COARSE_PRED_EACH_LAYER,
    )


@MASK_HEADS.register(name="CoarseMaskHead")  # what Detectron2 called it before
@MASK_HEADS.register(name="PointRendMaskHead")
def point_rend_mask_head(cfg: CfgNode, backbone: FPN, features: list[str]) -> PointRendMaskHead:
    """A coarse mask and, with MODEL.ROI_MASK_HEAD.POINT_HEAD_ON, points."""
    mask, point = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.POINT_HEAD
    for key, names in (("ROI_MASK_HEAD", mask.IN_FEATURES), ("POINT_HEAD", point.IN_FEATURES)):
        if not names or set(names) - set(features):
            raise ConfigError(
                f"MODEL.{key}.IN_FEATURES {list(names)} must name some of MODEL.ROI_HEADS.IN_FEATURES {features}."
            )
    if mask.POOLER_RESOLUTION % 2 or mask.NUM_FC < 1:
        raise ConfigError(
            f"PointRendMaskHead needs an even MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION and a NUM_FC of 1 at least, got "
            f"{mask.POOLER_RESOLUTION} and {mask.NUM_FC}."
        )
    return PointRendMaskHead(
        coarse_head=CoarseHead(
            in_channels=sum(backbone.channels[name] for name in mask.IN_FEATURES),
            resolution=mask.POOLER_RESOLUTION,
            conv_dim=mask.CONV_DIM,
            fc_dims=[mask.FC_DIM] * mask.NUM_FC,
            num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            side=mask.OUTPUT_SIDE_RESOLUTION,
        ),
        point_head=_part(cfg, "MODEL.POINT_HEAD.NAME")(cfg, sum(backbone.channels[name] for name in point.IN_FEATURES))
        if mask.POINT_HEAD_ON
        else None,
        coarse_maps=[features.index(name) for name in mask.IN_FEATURES],
        point_maps=[features.index(name) for name in point.IN_FEATURES],
        strides=[backbone.strides[name] for name in features],
        resolution=mask.POOLER_RESOLUTION,
        train_points=point.TRAIN_NUM_POINTS,
        oversample=point.OVERSAMPLE_RATIO,
        importance=point.IMPORTANCE_SAMPLE_RATIO,
        subdivisions=point.SUBDIVISION_STEPS,
        subdivision_points=point.SUBDIVISION_NUM_POINTS,
        border=cfg.MODEL.GATE.PADDING == "exact",  # beyond an image nothing is known, in a larger batch as in its own
    )


@KEYPOINT_HEADS.register(name="KRCNNConvDeconvUpsampleHead")
def keypoint_head(cfg: CfgNode, in_channels: int) -> KeypointHead:
    """Convolutions, a deconvolution and upsampling."""
    head, roi = cfg.MODEL.ROI_KEYPOINT_HEAD, cfg.MODEL.ROI_HEADS
    most = head.NUM_KEYPOINTS * roi.BATCH_SIZE_PER_IMAGE * roi.POSITIVE_FRACTION
    return KeypointHead(
        in_channels=in_channels,
        num_keypoints=head.NUM_KEYPOINTS,
        conv_dims=head.CONV_DIMS,
        loss_weight=head.LOSS_WEIGHT,
        loss_normaliser=None if head.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS else most,
    )


@ROI_HEADS.register(name="PointRendROIHeads")  # the same with other defaults, in Detectron2's project
@ROI_HEADS.register(name="StandardROIHeads")
def standard_roi_heads(cfg: CfgNode, backbone: FPN, features: list[str]) -> StandardROIHeads:
    """Box head and, with MODEL.MASK_ON and MODEL.KEYPOINT_ON, mask and keypoint heads on these maps."""
    box_head = _part(cfg, "MODEL.ROI_BOX_HEAD.NAME")(cfg, backbone.channels[features[0]])
    return StandardROIHeads(
        box_head=box_head,
        box_predictor=box_predictor(cfg, box_head.out_features, cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS),
        iou_thresholds=cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS,
        iou_labels=cfg.MODEL.ROI_HEADS.IOU_LABELS,
        train_on_predicted_boxes=cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES,
        **_shared_roi_parts(cfg, backbone, features),
    )


@ROI_HEADS.register(name="CascadeROIHeads")
def cascade_roi_heads(cfg: CfgNode, backbone: FPN, features: list[str]) -> CascadeROIHeads:
    """A box head for each of MODEL.ROI_BOX_CASCADE_HEAD's stages, and the other heads of `standard_roi_heads`."""
    weights, ious = _cascade_stages(cfg)
    channels = backbone.channels[features[0]]
    heads = [_part(cfg, "MODEL.ROI_BOX_HEAD.NAME")(cfg, channels) for _ in ious]
    return CascadeROIHeads(
        box_heads=heads,
        box_predictors=[box_predictor(cfg, head.out_features, own) for head, own in zip(heads, weights)],
        stage_thresholds=ious,
        **_shared_roi_parts(cfg, backbone, features),
    )


def _cascade_stages(cfg: CfgNode) -> tuple[Sequence[Sequence[float]], Sequence[float]]:
    """Weights and thresholds of the stages, as Detectron2 asks for them."""
    cascade, first = cfg.MODEL.ROI_BOX_CASCADE_HEAD, list(cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS)
    weights, ious = cascade.BBOX_REG_WEIGHTS, cascade.IOUS
    if not ious or len(weights) != len(ious):
        raise ConfigError(
            f"MODEL.ROI_BOX_CASCADE_HEAD has {len(ious)} IOUS and {len(weights)} BBOX_REG_WEIGHTS: give one of each "
            "for every stage."
        )
    if any(len(own) != 4 for own in weights):
        raise ConfigError(f"MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS must have four numbers a stage, got {weights}.")
    if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        raise ConfigError(
            "CascadeROIHeads moves a box once for all classes: MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True."
        )
    if cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES:
        raise ConfigError(
            "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES True has no effect on CascadeROIHeads, in Detectron2 neither: set "
            "it False."
        )
    if first != [ious[0]]:
        raise ConfigError(
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS is {first}, and the first of MODEL.ROI_BOX_CASCADE_HEAD.IOUS {ious[0]}: "
            "both are of the first stage, make them the same."
        )
    return weights, ious


def box_predictor(cfg: CfgNode, in_features: int, box_weights: Sequence[float]) -> BoxPredictor:
    """Scores and deltas, these with factors of their own."""
    roi, box = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
    return BoxPredictor(
        in_features=in_features,
        num_classes=roi.NUM_CLASSES,
        class_agnostic=box.CLS_AGNOSTIC_BBOX_REG,
        box_weights=box_weights,
        box_loss_type=box.BBOX_REG_LOSS_TYPE,
        smooth_l1_beta=box.SMOOTH_L1_BETA,
        box_loss_weight=box.BBOX_REG_LOSS_WEIGHT,
        sigmoid=box.USE_SIGMOID_CE,
        federated=_federated(cfg),
        score_threshold=roi.SCORE_THRESH_TEST,
        nms_threshold=roi.NMS_THRESH_TEST,
        nms_type=roi.NMS_TYPE,
        nms_sigma=roi.SOFT_NMS_SIGMA,
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
    )


def _shared_roi_parts(cfg: CfgNode, backbone: FPN, features: list[str]) -> dict[str, Any]:
    """What heads have whose boxes go through one stage or several."""
    roi, box, mask = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD
    strides = [backbone.strides[name] for name in features]
    parts = {
        "num_classes": roi.NUM_CLASSES,
        "box_pooler": ROIPooler(
            output_size=box.POOLER_RESOLUTION,
            strides=strides,
            sampling_ratio=box.POOLER_SAMPLING_RATIO,
            aligned=POOLER_TYPES[box.POOLER_TYPE],
        ),
        "batch_size_per_image": roi.BATCH_SIZE_PER_IMAGE,
        "positive_fraction": roi.POSITIVE_FRACTION,
        "append_truth": roi.PROPOSAL_APPEND_GT,
    }
    if cfg.MODEL.MASK_ON and mask.NAME in MAP_READING:
        parts["mask_head"] = _part(cfg, "MODEL.ROI_MASK_HEAD.NAME")(cfg, backbone, features)
    elif cfg.MODEL.MASK_ON:
        parts["mask_pooler"] = ROIPooler(
            output_size=mask.POOLER_RESOLUTION,
            strides=strides,
            sampling_ratio=mask.POOLER_SAMPLING_RATIO,
            aligned=POOLER_TYPES[mask.POOLER_TYPE],
        )
        parts["mask_head"] = _part(cfg, "MODEL.ROI_MASK_HEAD.NAME")(cfg, backbone.channels[features[0]])
    if cfg.MODEL.KEYPOINT_ON:
        keypoint = cfg.MODEL.ROI_KEYPOINT_HEAD
        parts["keypoint_pooler"] = ROIPooler(
            output_size=keypoint.POOLER_RESOLUTION,
            strides=strides,
            sampling_ratio=keypoint.POOLER_SAMPLING_RATIO,
            aligned=POOLER_TYPES[keypoint.POOLER_TYPE],
        )
        parts["keypoint_head"] = _part(cfg, "MODEL.ROI_KEYPOINT_HEAD.NAME")(cfg, backbone.channels[features[0]])
    return parts


def _federated(cfg: CfgNode) -> int:
    """How many classes a step's loss is over; 0 for all. Asked when the number of classes has been decided."""
    box, classes = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if not box.USE_FED_LOSS:
        return 0
    if not 1 <= box.FED_LOSS_NUM_CLASSES <= classes:
        raise ConfigError(
            f"MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES is {box.FED_LOSS_NUM_CLASSES} and there are {classes} classes: "
            f"give a number from 1 to {classes}, or set MODEL.ROI_BOX_HEAD.USE_FED_LOSS False."
        )
    return box.FED_LOSS_NUM_CLASSES
