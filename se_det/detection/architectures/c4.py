"""R-CNN on a trunk without a pyramid, whose last stage is the head (He et al., arXiv 1512.03385, appendix A)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ...backbones.blocks import Stage
from ...errors import ConfigError
from ..bottom_up import build_res5
from ..box_head import BoxPredictor
from ..build import build_mask_head
from ..build_roi_heads import box_predictor
from ..measured_part import MeasuredPart
from ..pooler import Levels, ROIPooler
from ..registry import ROI_HEADS
from ..roi_heads import StandardROIHeads, in_type_of


class Res5ROIHeads(StandardROIHeads):
    """Boxes of one map go through `res5`; its mean is classified, and the mask head reads it as it is (Detectron2's
    Res5ROIHeads).

    Args:
        res5: a trunk's stage.
        more: see `StandardROIHeads`.
    """

    def __init__(self, *, res5: Stage, **more: Any) -> None:
        super().__init__(box_head=None, **more)
        self.res5 = res5

    @property
    def box_stages(self) -> list[tuple[nn.Module, BoxPredictor]]:
        return [(self.res5, self.box_predictor)]

    def costs(self, channels: int, proposals: int) -> list[MeasuredPart]:
        side = self.box_pooler.output_size
        pooled = [(proposals, channels, side, side)]
        name = f"roi_heads.res5 ({proposals} proposals)"
        parts = [MeasuredPart(name, self.res5, pooled, lambda x: self.res5(*x))]
        if self.mask_head is not None:
            detections = self.box_predictor.max_detections
            width = self.box_predictor.cls_score.in_features
            pooled = [(detections, width, -(-side // 2), -(-side // 2))]
            name = f"roi_heads.mask_head ({detections} detections)"
            parts.append(MeasuredPart(name, self.mask_head, pooled, lambda x: self.mask_head(*x)))
        return parts

    def _features(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], levels: Levels | None = None
    ) -> torch.Tensor:
        return self.res5(in_type_of(self.res5, self.box_pooler(maps, boxes, levels)))[0]

    def _classify(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.box_predictor(in_type_of(self.box_predictor, features.mean((2, 3))))

    def _predict(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], levels: Levels | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._classify(self._features(maps, boxes, levels))

    def losses(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        sampled = self.sample_proposals(proposals, truth)
        boxes = [s["boxes"] for s in sampled]
        features = self._features(maps, boxes)
        losses = self.box_predictor.losses(
            *self._classify(features),
            torch.cat(boxes),
            torch.cat([s["classes"] for s in sampled]),
            torch.cat([s["truth"] for s in sampled]),
        )
        if self.mask_head is not None:
            # The mask head reads what was computed for the boxes.
            chosen = self._with_masks(sampled, truth)
            parts = features.split([len(b) for b in boxes])
            shown = torch.cat([part[at] for part, (at, _) in zip(parts, chosen)])
            losses.update(self._mask_loss_of(shown, sampled, truth, chosen))
        return losses

    def box_masks(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], classes: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        return self._masks_of(self._features(maps, boxes), boxes, classes)


@ROI_HEADS.register(name="Res5ROIHeads")
def res5_roi_heads(cfg: CfgNode, backbone: nn.Module, features: list[str]) -> Res5ROIHeads:
    """The ResNet's `res5` on boxes of MODEL.ROI_HEADS.IN_FEATURES, which is one map.

    Raises:
        ConfigError: several maps, or a trunk that has no such stage to give.
    """
    roi, box, resnets = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.RESNETS
    if len(features) != 1:
        raise ConfigError(
            f"MODEL.ROI_HEADS.IN_FEATURES {features} must name one map with MODEL.ROI_HEADS.NAME Res5ROIHeads: [res4]."
        )
    if resnets.DEFORM_ON_PER_STAGE[-1]:
        raise ConfigError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE {resnets.DEFORM_ON_PER_STAGE} has a deformable res5, which "
            "Res5ROIHeads has not: set its last to False."
        )
    res5, in_channels, channels = build_res5(cfg)
    if backbone.channels[features[0]] != in_channels:
        raise ConfigError(
            f"MODEL.ROI_HEADS.IN_FEATURES {features} has {backbone.channels[features[0]]} channels, and res5 reads "
            f"{in_channels}: set it to [res4], of MODEL.BACKBONE.NAME build_se_resnet_backbone."
        )
    return Res5ROIHeads(
        res5=res5,
        num_classes=roi.NUM_CLASSES,
        box_pooler=ROIPooler(
            output_size=box.POOLER_RESOLUTION,
            strides=[backbone.strides[features[0]]],
            sampling_ratio=box.POOLER_SAMPLING_RATIO,
        ),
        box_predictor=box_predictor(cfg, channels, box.BBOX_REG_WEIGHTS),
        mask_head=build_mask_head(cfg, channels) if cfg.MODEL.MASK_ON else None,
        batch_size_per_image=roi.BATCH_SIZE_PER_IMAGE,
        positive_fraction=roi.POSITIVE_FRACTION,
        iou_thresholds=roi.IOU_THRESHOLDS,
        iou_labels=roi.IOU_LABELS,
        append_truth=roi.PROPOSAL_APPEND_GT,
    )


res5_roi_heads.box_head = False  # MODEL.ROI_BOX_HEAD.NAME is not read
