"""Detectron2's own names, which are ours too, and those of Caffe2, under which it keeps MSRA's weights (`R-50.pkl`)."""

from __future__ import annotations

from dataclasses import replace

from .conventions import RGB_MEAN, WeightConventions
from .family import Family, Tensors
from .rules import Rule

BGR_MEAN = RGB_MEAN[::-1]


def _msra(grouped: bool | None) -> WeightConventions:
    facts = WeightConventions(None, "pad1", False, "BGR", BGR_MEAN, (1.0, 1.0, 1.0), "standard")
    if grouped:  # FAIR's ResNeXts
        return replace(facts, stride_in_1x1=False, pixel_std=(57.375, 57.12, 58.395))
    return facts if grouped is None else replace(facts, stride_in_1x1=True)


_BRANCHES = (("conv1", "branch2a"), ("conv2", "branch2b"), ("conv3", "branch2c"), ("shortcut", "branch1"))
_NORM = (("weight", "gamma"), ("bias", "beta"), ("running_mean", "running_mean"), ("running_var", "running_var"))
_LAYERS = (
    ("stem.conv1", "conv1", "res_conv1"),
    *((f"res{{s}}.{{b}}.{ours}", f"res{{s}}_{{b}}_{theirs}", f"res{{s}}_{{b}}_{theirs}") for ours, theirs in _BRANCHES),
)

CAFFE2 = Family(
    name="caffe2",
    about="weights of Detectron2's model zoo under Caffe2's names (MSRA's R-50.pkl, FAIR's X-101)",
    marker_keys=(r"^conv1_w$", r"^res2_0_branch2a_w$"),
    rules=(
        *(Rule(f"{ours}.weight", f"{theirs}_w") for ours, theirs, _ in _LAYERS),
        *(Rule(f"{ours}.norm.{mine}", f"{theirs}_bn_{yours}") for ours, _, theirs in _LAYERS for mine, yours in _NORM),
        Rule("linear.weight", "fc1000_w"),
        Rule("linear.bias", "fc1000_b"),
    ),
    facts=_msra,
    trunk=r"res\d",  # conv1_b is in MSRA's files; Detectron2 leaves it out as well
)

# Where PointRend's heads were before they became parts of its mask head; its published weights are as old as that.
_MOVED = (
    ("roi_heads.mask_coarse_head.coarse_mask_fc", "roi_heads.mask_head.coarse_head.fc"),
    ("roi_heads.mask_coarse_head.", "roi_heads.mask_head.coarse_head."),
    ("roi_heads.mask_point_head.", "roi_heads.mask_head.point_head."),
)


def _unpack_detectron2(tensors: Tensors) -> Tensors:
    renamed = {}
    for key, tensor in tensors.items():
        if "anchor_generator.cell_anchors" in key:  # in files of 2019; the config says what they are
            continue
        for old, new in _MOVED:
            key = new + key.removeprefix(old) if key.startswith(old) else key
        renamed[key] = tensor
    return renamed


DETECTRON2 = Family(
    name="detectron2",
    about="Detectron2: a backbone converted for it, or a detector trained with it",
    marker_keys=(r"(^|\.)stem\.conv1\.weight$",),
    # Its converter puts "stem." before the classifier of torchvision's networks, too.
    rules=(Rule("linear.{wb}", "stem.fc.{wb}"),),
    unpack=_unpack_detectron2,
    like=("caffe2", "detectron2_regnet", "se_det"),
)

SE_DET = Family(
    name="se_det",
    about="this project: backbones, classifiers, detectors, and converted files",
    marker_keys=(r"(^|\.)stem\.conv1\.weight$",),
)
