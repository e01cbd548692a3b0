"""What Detectron2's engine has nothing for, and refuses by its key."""

from __future__ import annotations

from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from fvcore.common.config import CfgNode

from ..config.loading import get_key
from ..detection.bottom_up import gate_name
from ..errors import ConfigError, suggestion
from .detectron2 import register_backbone

# Our own keys that Detectron2 has no part for: key, the one value that works there, what to do instead.
BUILTIN_ONLY = (
    ("DATALOADER.SKIP_BAD_IMAGES", 0, "its loader ends at the first image that cannot be read"),
    ("INPUT.RESIZE", "pil", "its loader resizes with PIL"),
    ("MODEL.ROI_HEADS.NMS_TYPE", "hard", "its detectors drop all but the best box"),
    ("MODEL.RESNETS.STOCHASTIC_DEPTH", 0.0, "its ResNets have no stochastic depth"),
    ("MODEL.CHECKPOINT_ACTIVATIONS", False, "its trainer keeps what each block computed"),
    ("SOLVER.BACKBONE_LR_FACTOR", 1.0, "its optimizer has one rate for all layers"),
    ("SOLVER.LAYER_DECAY", 1.0, "its optimizer has one rate for all layers"),
    ("SOLVER.FP16_COMPRESSION", False, "its processes exchange gradients as they are"),
    ("INPUT.AUGMENTATIONS", [], "its loader resizes, flips and crops as Detectron2's keys say"),
    ("DATASETS.TRAIN_SEM_SEG", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.TRAIN_PANOPTIC_JSON", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.TRAIN_PANOPTIC", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.VAL_SEM_SEG", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.VAL_PANOPTIC_JSON", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.VAL_PANOPTIC", "", "its sets of pixels are those of its own catalog"),
    ("DATASETS.SEM_SEG_CLASSES", [], "its sets of pixels are those of its own catalog"),
    ("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 1.0, "its default loader crops anywhere"),
    ("INPUT.TILE.SIZE", 0, "its loader takes whole images"),
    ("TEST.TILE.SIZE", 0, "its evaluation takes whole images"),
    ("TEST.EVALUATORS", ["coco"], "it evaluates with Detectron2's evaluators"),
    ("WRITERS", ["json", "tensorboard"], "its trainer writes both"),
    ("SOLVER.ACCUMULATE", 1, "its trainer computes a step in one part"),
    ("SOLVER.EMA.DECAY", 0.0, "its trainer keeps no averaged weights"),
    ("TEST.PRECISION", "float32", "its evaluation computes in float32"),
    ("TEST.COMPILE", False, "its evaluation is not compiled"),
    ("MODEL.ANCHOR_GENERATOR.ROUNDED", False, "its anchors are not rounded"),
    ("MODEL.RETINANET.CLIP_BEFORE_NMS", False, "its boxes are cut off after NMS"),
    ("MODEL.FCOS.CLIP_BEFORE_NMS", False, "its boxes are cut off after NMS"),
    ("MODEL.FCOS.OFFSET", 0.5, "its points are in the middle of their cells"),
    ("MODEL.KERNELS", "pytorch", "its networks compute with PyTorch's operators"),
    ("TEST.EVAL_LOSS", False, "its evaluation computes no losses"),
    ("TEST.EARLY_STOP", 0, "its trainer always goes to SOLVER.MAX_ITER"),
)


def check_keys(cfg: CfgNode) -> None:
    """Refuse our own keys where Detectron2 has nothing for them, and backbones that neither has.

    Raises:
        ConfigError: naming the key.
    """
    name = cfg.MODEL.BACKBONE.NAME
    register_backbone(name)
    if name not in BACKBONE_REGISTRY:
        known = [known for known, _ in BACKBONE_REGISTRY]
        raise ConfigError(f"MODEL.BACKBONE.NAME '{name}' is registered by nobody.{suggestion(name, known)}")
    for key, value, why in BUILTIN_ONLY:
        given = get_key(cfg, key)
        if given != value:
            raise ConfigError(
                f"{key} is {given!r}, and with --engine detectron2 it must be {value!r}, as {why}: use the builtin "
                "engine for it."
            )
    if cfg.MODEL.FPN.TOP_BLOCK and BACKBONE_REGISTRY.get(name).__module__ != register_backbone.__module__:
        raise ConfigError(
            f"MODEL.FPN.TOP_BLOCK is {cfg.MODEL.FPN.TOP_BLOCK}, and MODEL.BACKBONE.NAME {name} is Detectron2's, which "
            "does not read it: use build_se_resnet_fpn_backbone."
        )
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCH_REGISTRY:
        known = [known for known, _ in META_ARCH_REGISTRY]
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE '{cfg.MODEL.META_ARCHITECTURE}' is none of Detectron2's."
            f"{suggestion(cfg.MODEL.META_ARCHITECTURE, known)}"
        )
    if cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads" and gate_name(cfg) != "none" and "res5" in cfg.MODEL.GATE.STAGES:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NAME is Res5ROIHeads, whose res5 has no gates in Detectron2, and the network's gate is "
            f"{gate_name(cfg)}: take res5 out of MODEL.GATE.STAGES, or use the builtin engine, whose res5 has them."
        )
    amp = cfg.SOLVER.AMP
    if amp.ENABLED and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("SOLVER.AMP.ENABLED is True, which Detectron2 has for GPUs only: use the builtin engine.")
    if amp.DTYPE not in ("float16", "bfloat16"):
        raise ConfigError(f"SOLVER.AMP.DTYPE '{amp.DTYPE}' is unknown: use float16 or bfloat16.")
    if cfg.SOLVER.OPTIMIZER not in ("SGD", "AdamW"):
        raise ConfigError(f"SOLVER.OPTIMIZER '{cfg.SOLVER.OPTIMIZER}' is unknown: use SGD or AdamW.")
