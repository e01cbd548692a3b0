"""From a config to the trunk below the pyramid: here MODEL.BACKBONE, MODEL.RESNETS and MODEL.GATE are read."""

from __future__ import annotations

from typing import Any

from fvcore.common.config import CfgNode

from ..backbones.blocks import Stage
from ..backbones.catalog import HOSTS, create_backbone, is_model, list_models, parse_name
from ..backbones.resnet import ResNet
from ..backbones.timm_trunk import PREFIX, TimmTrunk
from ..backbones.trunk import Trunk
from ..config import get_cfg
from ..errors import ConfigError, suggestion
from ..plugins import load_installed_plugins
from .registry import BACKBONES

# Detectron2's builder names: a ResNet of which MODEL.RESNETS and MODEL.GATE say everything.
RETINANET_BUILDERS = ("build_se_resnet_retinanet_fpn_backbone", "build_retinanet_resnet_fpn_backbone")
# The same without a pyramid.
TRUNK_BUILDERS = ("build_se_resnet_backbone", "build_resnet_backbone")
RESNET_BUILDERS = (
    "build_se_resnet_fpn_backbone",
    "build_resnet_fpn_backbone",
    *RETINANET_BUILDERS,
    *TRUNK_BUILDERS,
)
# Keys that a catalog name decides, so that another value would be ignored.
FIXED_BY_NAME = ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS", "STEM_OUT_CHANNELS")
# Keys that only the ResNets among the catalog's names read, and the arguments that they are.
ONLY_RESNETS = (
    "STEM_POOL", "RES5_DILATION", "BRANCH_RELU", "STOCHASTIC_DEPTH", "DEFORM_ON_PER_STAGE", "DEFORM_MODULATED",
    "DEFORM_NUM_GROUPS",
)  # fmt: skip
RESNET_OPTIONS = {
    "STRIDE_IN_1X1": "stride_in_1x1",
    "STEM_POOL": "stem_pool",
    "RES5_DILATION": "res5_dilation",
    "BRANCH_RELU": "branch_relu",
    "STOCHASTIC_DEPTH": "stochastic_depth",
    "DEFORM_ON_PER_STAGE": "deform_on_per_stage",
    "DEFORM_MODULATED": "deform_modulated",
    "DEFORM_NUM_GROUPS": "deform_groups",
}


def build_bottom_up(cfg: CfgNode) -> Trunk | TimmTrunk:
    """The trunk that MODEL.BACKBONE.NAME names, frozen as MODEL.BACKBONE.FREEZE_AT says.

    The name is one of Detectron2's builders, a model of the catalog (`se_bn_inception`), whose name has the gate, or a
    network of timm's (`timm/convnext_atto`).

    Raises:
        ConfigError: the name is unknown, or a key contradicts it or would be ignored.
    """
    if cfg.MODEL.BACKBONE.NAME in RESNET_BUILDERS:
        trunk: Trunk | TimmTrunk = _from_keys(cfg)
    else:
        check_backbone(cfg)
        if cfg.MODEL.BACKBONE.NAME in BACKBONES:
            trunk = BACKBONES.get(cfg.MODEL.BACKBONE.NAME)(cfg)
            trunk.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
            return trunk
        trunk = _from_timm(cfg) if cfg.MODEL.BACKBONE.NAME.startswith(PREFIX) else _from_catalog(cfg)
    trunk.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
    return trunk


def gate_name(cfg: CfgNode) -> str:
    """The gate of the network: the one in a catalog name, else MODEL.GATE.NAME."""
    name = cfg.MODEL.BACKBONE.NAME
    return parse_name(name)[0] if is_model(name) else cfg.MODEL.GATE.NAME


def check_backbone(cfg: CfgNode) -> None:
    """Refuse a name that there is not, and keys that contradict it or that it would ignore.

    Raises:
        ConfigError: naming the key, its value and the remedy.
    """
    name, given = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.GATE.NAME
    of_timm = name.startswith(PREFIX)
    if not (name in RESNET_BUILDERS or name in BACKBONES or of_timm or is_model(name)):
        load_installed_plugins()
    if name in RESNET_BUILDERS or name in BACKBONES:
        return
    if not (of_timm or is_model(name)):
        known = [*RESNET_BUILDERS, *BACKBONES.names(), *list_models()]
        raise ConfigError(
            f"MODEL.BACKBONE.NAME '{name}' is unknown: use {' or '.join(RESNET_BUILDERS)}, a model's name such as "
            f"se_bn_inception, or {PREFIX}<name>.{suggestion(name, known)} If it is one "
            "of Detectron2's, run with --engine detectron2."
        )
    if of_timm and cfg.MODEL.GATE.PLACEMENT != "standard":
        raise ConfigError(
            f"MODEL.GATE.PLACEMENT is {cfg.MODEL.GATE.PLACEMENT}, and in MODEL.BACKBONE.NAME {name} a gate can only be "
            "at the end of a residual branch: leave it at standard."
        )
    if given not in ("", "none", gate_name(cfg)):
        raise ConfigError(
            f"MODEL.BACKBONE.NAME {name} has the gate '{gate_name(cfg)}', and MODEL.GATE.NAME is '{given}': leave "
            "MODEL.GATE.NAME at none, or name the model with that gate."
        )
    resnets, defaults = cfg.MODEL.RESNETS, get_cfg().MODEL.RESNETS
    # Hosts without bottlenecks take either STRIDE_IN_1X1: it says something of bottlenecks only.
    unread = () if not of_timm and _is_resnet(name) else ONLY_RESNETS
    for key in (*FIXED_BY_NAME, *unread):
        if resnets[key] != defaults[key]:
            raise ConfigError(
                f"MODEL.BACKBONE.NAME {name} does not read MODEL.RESNETS.{key}, which is {resnets[key]}: leave it at "
                f"its default, {defaults[key]}."
            )
    fixed = {} if of_timm else HOSTS[parse_name(name)[1]].arguments
    for key, argument in RESNET_OPTIONS.items():
        if resnets[key] != fixed.get(argument, resnets[key]):
            raise ConfigError(
                f"MODEL.BACKBONE.NAME {name} has MODEL.RESNETS.{key} {fixed[argument]}, and the config says "
                f"{resnets[key]}: set it to {fixed[argument]}."
            )


def _is_resnet(name: str) -> bool:
    return HOSTS[parse_name(name)[1]].build is ResNet


def _common_options(cfg: CfgNode) -> dict[str, Any]:
    """The arguments that every trunk has."""
    resnets, gate = cfg.MODEL.RESNETS, cfg.MODEL.GATE
    return {
        "norm": resnets.NORM,
        "reduction": gate.REDUCTION,
        "gate_bias": gate.BIAS,
        "gate_norm": gate.NORM,
        "gate_stages": gate.STAGES,
        "gate_init": gate.INIT or "paper",
        "gate_placement": gate.PLACEMENT,
        "padding": gate.PADDING,
        "out_features": resnets.OUT_FEATURES,
    }


def _from_keys(cfg: CfgNode) -> ResNet:
    last = {}
    if cfg.MODEL.BACKBONE.NAME in TRUNK_BUILDERS:  # a head may have the stages after it
        last["last_stage"] = max(cfg.MODEL.RESNETS.OUT_FEATURES, default="res5")
    return ResNet(**_resnet_options(cfg), **last)


def _resnet_options(cfg: CfgNode) -> dict[str, Any]:
    resnets = cfg.MODEL.RESNETS
    return {
        "depth": resnets.DEPTH,
        "groups": resnets.NUM_GROUPS,
        "width_per_group": resnets.WIDTH_PER_GROUP,
        "stem_channels": resnets.STEM_OUT_CHANNELS,
        "res2_channels": resnets.RES2_OUT_CHANNELS,
        "gate": cfg.MODEL.GATE.NAME,
        **{argument: resnets[key] for key, argument in RESNET_OPTIONS.items()},
        **_common_options(cfg),
    }


def build_res5(cfg: CfgNode) -> tuple[Stage, int, int]:
    """The last stage of the ResNet that the keys say, of stride 2, for boxes cut out of `res4`; the channels that it
    reads and gives.

    Raises:
        ConfigError: the network has no bottlenecks.
    """
    depth = cfg.MODEL.RESNETS.DEPTH
    if depth < 50:
        raise ConfigError(
            f"MODEL.RESNETS.DEPTH is {depth}, and MODEL.ROI_HEADS.NAME Res5ROIHeads needs bottlenecks: use 50 or more."
        )
    # All of a network is made, as its stages are, for one of them: its gates and initial values are then the trunk's.
    trunk = ResNet(**{**_resnet_options(cfg), "res5_dilation": 1, "out_features": ("res5",)})
    return trunk.res5, trunk.channels["res4"], trunk.channels["res5"]


def _from_catalog(cfg: CfgNode) -> Trunk:
    name, options = cfg.MODEL.BACKBONE.NAME, _common_options(cfg)
    if _is_resnet(name):
        options |= {argument: cfg.MODEL.RESNETS[key] for key, argument in RESNET_OPTIONS.items()}
    return create_backbone(name, **options)


def _from_timm(cfg: CfgNode) -> TimmTrunk:
    options = _common_options(cfg)
    del options["gate_placement"]
    trunk = TimmTrunk(name=cfg.MODEL.BACKBONE.NAME.removeprefix(PREFIX), gate=cfg.MODEL.GATE.NAME or "none", **options)
    trunk.wrong_input = trunk.input_mismatch(
        mean=cfg.MODEL.PIXEL_MEAN, std=cfg.MODEL.PIXEL_STD, channels=cfg.INPUT.FORMAT
    )
    return trunk
