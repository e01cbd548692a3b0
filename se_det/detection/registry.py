"""The parts of a detector that a config names, and what each must be. `build` registers the package's own.

Every entry is a function that reads its own keys; what it makes is a module whose constructor knows no config.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fvcore.common.config import CfgNode

from ..registry import Registry

# MODEL.META_ARCHITECTURE: build(cfg) -> detector. A detector is a module with
#   forward(samples): in training mode a dict of losses, which are added up; otherwise detections. `samples` are dicts
#       with `image` (3, H, W) uint8, `height`, `width`, and in training `instances`: `gt_boxes` (n, 4) XYXY px,
#       `gt_classes` (n,) and with MODEL.MASK_ON `gt_masks` (see `masks`), or, of pixels, `sem_seg` (H, W);
#   detect(samples): what `forward` gives in evaluation mode, masks maybe not pasted yet: for each image
#       {"instances": {`pred_boxes` (m, 4) px of the image's own size, `scores` (m,), `pred_classes` (m,), ...}} and, or
#       in its place, `sem_seg` logits (K, height, width), `panoptic_seg` (see `combine_segments`);
#   inference_parts(): the modules that may be fused and computed in TEST.PRECISION;
#   device: where its weights are; backbone: whose pretrained weights MODEL.WEIGHTS may hold.
# What else may be asked of one is in `rcnn.Detector`, whose answers serve most. What has to be known before it is
# built is in its `ModelFacts`. Parameters whose rows are classes are named by `weights.register_class_rows`.
META_ARCHITECTURES = Registry("meta-architecture")


def boxes_and_masks(cfg: CfgNode) -> tuple[str, ...]:
    """The tasks of a detector with MODEL.MASK_ON and MODEL.KEYPOINT_ON."""
    return ("bbox", *("segm",) * cfg.MODEL.MASK_ON, *("keypoints",) * cfg.MODEL.KEYPOINT_ON)


def two_stage_norms(cfg: CfgNode) -> tuple[str, ...]:
    """The keys of the norms of a pyramid and of RoI heads."""
    return ("MODEL.FPN.NORM", "MODEL.ROI_BOX_HEAD.NORM", *(("MODEL.ROI_MASK_HEAD.NORM",) * cfg.MODEL.MASK_ON))


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is asked of a meta-architecture before it is built. The defaults are those of a GeneralizedRCNN.

    Attributes:
        class_keys: the keys that hold the number of the data's classes.
        tasks: of a config, what its detector is evaluated in: "bbox", "segm", "box_proposals", ....
        norms: of a config, the keys of the norms that its detector has besides MODEL.RESNETS's and the gates'.
        anchor_maps: the key that names the maps with anchors; "" where there are none.
        two_stage: whether it has a proposal network and RoI heads, whose keys the recipe sets.
        test_augmentation: whether it can be used with TEST.AUG.
        check: refuses, with a ConfigError, values of its keys that it cannot work with.
    """

    class_keys: tuple[str, ...] = ("MODEL.ROI_HEADS.NUM_CLASSES",)
    tasks: Callable[[CfgNode], tuple[str, ...]] = boxes_and_masks
    norms: Callable[[CfgNode], tuple[str, ...]] = two_stage_norms
    anchor_maps: str = "MODEL.RPN.IN_FEATURES"
    two_stage: bool = False
    test_augmentation: bool = False
    check: Callable[[CfgNode], None] = lambda cfg: None


# By the name of a meta-architecture; one without an entry has the defaults.
MODEL_FACTS = Registry("description of a meta-architecture")


def model_facts(cfg: CfgNode) -> ModelFacts:
    """The facts of MODEL.META_ARCHITECTURE."""
    return facts_of(cfg.MODEL.META_ARCHITECTURE)


def facts_of(name: str) -> ModelFacts:
    """The facts of a meta-architecture."""
    return MODEL_FACTS.get(name) if name in MODEL_FACTS else ModelFacts()


# MODEL.BACKBONE.NAME, besides the catalog's and timm's names: build(cfg) -> what stands below the pyramid, a module
# with `features(x, area)`, `channels`, `strides`, `out_features`, `padding` and `freeze(at)`: see `backbones.Trunk`.
BACKBONES = Registry("backbone")

# MODEL.PROPOSAL_GENERATOR.NAME: build(cfg, backbone, features) -> see `RPN.forward`. PrecomputedProposals, which are
# read from files, is known besides: `fast_rcnn`.
PROPOSAL_GENERATORS = Registry("proposal generator", detectron2=("RRPN",))

# MODEL.ANCHOR_GENERATOR.NAME: build(cfg, strides) -> see `AnchorGenerator`.
ANCHOR_GENERATORS = Registry("anchor generator", detectron2=("RotatedAnchorGenerator",))

# MODEL.ROI_HEADS.NAME: build(cfg, backbone, features), with `box_head = False` as an attribute where
# MODEL.ROI_BOX_HEAD.NAME is not read -> a module with `losses` and `detect`, see `StandardROIHeads`.
ROI_HEADS = Registry("RoI heads", detectron2=("RROIHeads",))

# MODEL.ROI_BOX_HEAD.NAME: build(cfg, in_channels) -> pooled maps (n, C, R, R) to (n, `out_features`).
BOX_HEADS = Registry("box head")

# MODEL.ROI_MASK_HEAD.NAME: build(cfg, in_channels) -> see `MaskHead`; or, of those in `MAP_READING`, which have no
# pooler, build(cfg, backbone, features) -> a module with `losses` and `probabilities`, see `PointRendMaskHead`.
MASK_HEADS = Registry("mask head", detectron2=("ImplicitPointRendMaskHead",))
MAP_READING = {"PointRendMaskHead", "CoarseMaskHead"}

# MODEL.POINT_HEAD.NAME: build(cfg, in_channels) -> see `PointHead`.
POINT_HEADS = Registry("point head", detectron2=("ImplicitPointHead",))

# MODEL.ROI_KEYPOINT_HEAD.NAME: build(cfg, in_channels) -> see `KeypointHead`.
KEYPOINT_HEADS = Registry("keypoint head")

# MODEL.SEM_SEG_HEAD.NAME: build(cfg, backbone) -> see `SemSegFPNHead`.
SEM_SEG_HEADS = Registry("semantic head")
