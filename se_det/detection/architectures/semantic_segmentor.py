"""Semantic segmentation: a class for every pixel (Detectron2's SemanticSegmentor)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ...backbones.fpn import FPN
from ...backbones.trunk import image_area
from ...config.loading import get_key
from ...errors import ConfigError
from ..build import build_backbone
from ..point_rend import PointHead
from ..point_rend_sem_seg import PointRendSemSegHead
from ..rcnn import Detector, MeasuredPart
from ..registry import META_ARCHITECTURES, MODEL_FACTS, SEM_SEG_HEADS, ModelFacts
from ..sem_seg_head import SemSegFPNHead, resize_logits


class SemanticSegmentor(Detector):
    """A backbone and a head of logits.

    Args:
        backbone: an `FPN`.
        sem_seg_head: see `SemSegFPNHead`.
        pixel_mean, pixel_std: see `Detector`.
    """

    def __init__(
        self, *, backbone: nn.Module, sem_seg_head: SemSegFPNHead, pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.sem_seg_head = sem_seg_head

    def inference_parts(self) -> list[nn.Module]:
        """All but the layer of scores."""
        return [self.backbone, *self.sem_seg_head.inference_parts()]

    def score_layers(self) -> list[nn.Module]:
        return [self.sem_seg_head.predictor]

    def head_costs(self, maps: Mapping[str, torch.Tensor]) -> list[MeasuredPart]:
        """The semantic head."""
        return [measured_head(self.sem_seg_head, maps)]

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """The loss in training mode, logits otherwise.

        Args:
            samples: dicts with `image` (3, H, W) uint8 or float, not normalised; in training `sem_seg` (H, W), the
                classes of the pixels; otherwise optionally `height` and `width`, in which results are wanted.

        Returns:
            training: `loss_sem_seg`. Otherwise a dict for each image: {"sem_seg": logits (K, height, width)}.
        """
        x, sizes = self.batch([s["image"] for s in samples])
        maps, areas = self.backbone.features(x, image_area(self.backbone.padding, sizes))
        logits = self.sem_seg_head(maps, areas)
        if self.training:
            return self.sem_seg_head.loss(logits, [s["sem_seg"] for s in samples])
        return [
            {"sem_seg": resize_logits(one, size, s.get("height", size[0]), s.get("width", size[1]))}
            for one, size, s in zip(logits, sizes, samples)
        ]

    def detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What `forward` gives in evaluation mode."""
        return self(samples)


def measured_head(head: SemSegFPNHead, maps: Mapping[str, torch.Tensor]) -> MeasuredPart:
    """The semantic head on maps of one image, to be measured."""
    names = list(head.strides)
    shapes = [tuple(maps[name].shape) for name in names]
    return MeasuredPart("sem_seg_head", head, shapes, lambda x: head(dict(zip(names, x)), dict.fromkeys(names)))


@SEM_SEG_HEADS.register(name="SemSegFPNHead")
def sem_seg_fpn_head(cfg: CfgNode, backbone: FPN) -> SemSegFPNHead:
    """Convolutions, doublings and a sum."""
    head = cfg.MODEL.SEM_SEG_HEAD
    unknown = [name for name in head.IN_FEATURES if name not in backbone.strides]
    if unknown:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES {list(head.IN_FEATURES)} must name maps of the backbone: "
            f"{list(backbone.strides)}."
        )
    return SemSegFPNHead(
        in_features={name: (backbone.channels[name], backbone.strides[name]) for name in head.IN_FEATURES},
        num_classes=head.NUM_CLASSES,
        conv_dims=head.CONVS_DIM,
        common_stride=head.COMMON_STRIDE,
        norm=head.NORM,
        loss_weight=head.LOSS_WEIGHT,
        ignore_value=head.IGNORE_VALUE,
    )


@SEM_SEG_HEADS.register(name="PointRendSemSegHead")
def point_rend_sem_seg_head(cfg: CfgNode, backbone: FPN) -> PointRendSemSegHead:
    """The head above, with points on the maps of MODEL.POINT_HEAD.IN_FEATURES.

    Raises:
        ConfigError: naming the key.
    """
    point, stride = cfg.MODEL.POINT_HEAD, cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE
    for key, value, wanted in (
        ("COARSE_SEM_SEG_HEAD_NAME", point.COARSE_SEM_SEG_HEAD_NAME, "SemSegFPNHead"),
        ("NAME", point.NAME, "StandardPointHead"),
        ("CLS_AGNOSTIC_MASK", point.CLS_AGNOSTIC_MASK, False),
    ):
        if value != wanted:
            raise ConfigError(f"MODEL.POINT_HEAD.{key} is {value}, and PointRendSemSegHead needs {wanted}.")
    if stride != 2**point.SUBDIVISION_STEPS:
        raise ConfigError(
            f"MODEL.POINT_HEAD.SUBDIVISION_STEPS {point.SUBDIVISION_STEPS} doublings do not bring the logits from "
            f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE {stride} to the image's size: set 2 for stride 4."
        )
    if cfg.MODEL.GATE.PADDING == "exact":
        raise ConfigError(
            "MODEL.GATE.PADDING exact does not reach the points of MODEL.SEM_SEG_HEAD.NAME PointRendSemSegHead: use "
            "squeeze or keep."
        )
    unknown = set(point.IN_FEATURES) - set(backbone.strides)
    if unknown or not point.IN_FEATURES:
        raise ConfigError(
            f"MODEL.POINT_HEAD.IN_FEATURES {list(point.IN_FEATURES)} must name maps of the backbone: "
            f"{list(backbone.strides)}."
        )
    return PointRendSemSegHead(
        coarse_head=sem_seg_fpn_head(cfg, backbone),
        point_head=PointHead(
            in_channels=sum(backbone.channels[name] for name in point.IN_FEATURES),
            num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            fc_dims=[point.FC_DIM] * point.NUM_FC,
            coarse_each_layer=point.COARSE_PRED_EACH_LAYER,
        ),
        in_features=point.IN_FEATURES,
        train_points=point.TRAIN_NUM_POINTS,
        oversample=point.OVERSAMPLE_RATIO,
        importance=point.IMPORTANCE_SAMPLE_RATIO,
        subdivisions=point.SUBDIVISION_STEPS,
        subdivision_points=point.SUBDIVISION_NUM_POINTS,
    )


def build_sem_seg_head(cfg: CfgNode, backbone: FPN) -> Any:
    """The head that MODEL.SEM_SEG_HEAD.NAME names."""
    key = "MODEL.SEM_SEG_HEAD.NAME"
    return SEM_SEG_HEADS.get(cfg.MODEL.SEM_SEG_HEAD.NAME, key)(cfg, backbone)


@META_ARCHITECTURES.register(name="SemanticSegmentor")
def semantic_segmentor(cfg: CfgNode) -> SemanticSegmentor:
    """A class for every pixel."""
    backbone = build_backbone(cfg)
    return SemanticSegmentor(
        backbone=backbone,
        sem_seg_head=build_sem_seg_head(cfg, backbone),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )


def pixel_norms(cfg: CfgNode) -> tuple[str, ...]:
    """The keys of the norms of a pyramid and of a semantic head."""
    return "MODEL.FPN.NORM", "MODEL.SEM_SEG_HEAD.NORM"


def check_pixel_classes(cfg: CfgNode) -> None:
    """Refuse a head that there is not, and windows of images, of which classes of pixels are not put together.

    Raises:
        ConfigError: naming the key.
    """
    SEM_SEG_HEADS.get(cfg.MODEL.SEM_SEG_HEAD.NAME, "MODEL.SEM_SEG_HEAD.NAME")
    for key in ("INPUT.TILE.SIZE", "TEST.TILE.SIZE"):
        if get_key(cfg, key):
            raise ConfigError(
                f"{key} is {get_key(cfg, key)}, and {cfg.MODEL.META_ARCHITECTURE} (MODEL.META_ARCHITECTURE) labels "
                f"whole images: set {key} 0."
            )


MODEL_FACTS.register(
    ModelFacts(
        class_keys=(), tasks=lambda cfg: ("sem_seg",), norms=pixel_norms, anchor_maps="", check=check_pixel_classes
    ),
    name="SemanticSegmentor",
)
