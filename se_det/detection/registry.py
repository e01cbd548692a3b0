"""The parts of a detector that a config names, and what each must be. `build` registers the package's own.

Every entry is a function that reads its own keys; what it makes is a module whose constructor knows no config.
"""

from __future__ import annotations

from ..registry import Registry

# MODEL.META_ARCHITECTURE: build(cfg) -> detector. A detector is a module with
#   forward(samples): in training mode a dict of losses, which are added up; otherwise detections. `samples` are dicts
#       with `image` (3, H, W) uint8, `height`, `width`, and in training `instances`: `gt_boxes` (n, 4) XYXY px,
#       `gt_classes` (n,) and with MODEL.MASK_ON `gt_masks` (see `masks`);
#   detect(samples): what `forward` gives in evaluation mode, masks maybe not pasted yet: for each image
#       {"instances": {`pred_boxes` (m, 4) px of the image's own size, `scores` (m,), `pred_classes` (m,), ...}};
#   inference_parts(): the modules that may be fused and computed in TEST.PRECISION;
#   device: where its weights are; backbone: whose pretrained weights MODEL.WEIGHTS may hold.
META_ARCHITECTURES = Registry(
    "meta-architecture", detectron2=("RetinaNet", "FCOS", "PanopticFPN", "ProposalNetwork", "SemanticSegmentor")
)

# MODEL.BACKBONE.NAME, besides the catalog's and timm's names: build(cfg) -> what stands below the pyramid, a module
# with `features(x, area)`, `channels`, `strides`, `out_features`, `padding` and `freeze(at)`: see `backbones.Trunk`.
BACKBONES = Registry("backbone")

# MODEL.PROPOSAL_GENERATOR.NAME: build(cfg, backbone, features) -> see `RPN.forward`.
PROPOSAL_GENERATORS = Registry("proposal generator", detectron2=("PrecomputedProposals", "RRPN"))

# MODEL.ANCHOR_GENERATOR.NAME: build(cfg, strides) -> see `AnchorGenerator`.
ANCHOR_GENERATORS = Registry("anchor generator", detectron2=("RotatedAnchorGenerator",))

# MODEL.ROI_HEADS.NAME: build(cfg, backbone, features) -> a module with `losses` and `detect`, see `StandardROIHeads`.
ROI_HEADS = Registry("RoI heads", detectron2=("Res5ROIHeads", "RROIHeads"))

# MODEL.ROI_BOX_HEAD.NAME: build(cfg, in_channels) -> pooled maps (n, C, R, R) to (n, `out_features`).
BOX_HEADS = Registry("box head")

# MODEL.ROI_MASK_HEAD.NAME: build(cfg, in_channels) -> see `MaskHead`.
MASK_HEADS = Registry("mask head", detectron2=("PointRendMaskHead", "CoarseMaskHead"))
