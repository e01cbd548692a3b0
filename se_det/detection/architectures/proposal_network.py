"""A region proposal network alone (Detectron2's ProposalNetwork): boxes of objects of any class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ...backbones.trunk import image_area
from ...errors import ConfigError
from .. import boxes as box_ops
from ..build import build_backbone, build_proposal_generator, check_features, check_no_masks, check_proposals
from ..measured_part import MeasuredPart
from ..rcnn import Detector
from ..registry import META_ARCHITECTURES, MODEL_FACTS, ModelFacts
from ..rpn import RPN


class ProposalNetwork(Detector):
    """Backbone and proposal generator.

    Args:
        proposal_generator: see `RPN`.
        features: the maps that it reads.
        shared: see `Detector`.
    """

    def __init__(self, *, proposal_generator: RPN, features: Sequence[str], **shared: Any) -> None:
        super().__init__(**shared)
        self.proposal_generator = proposal_generator
        self.features = tuple(features)

    def inference_parts(self) -> list[nn.Module]:
        return [self.backbone, self.proposal_generator.rpn_head]

    def score_layers(self) -> list[nn.Module]:
        return [self.proposal_generator.rpn_head.objectness_logits]

    def head_costs(self, maps: Mapping[str, torch.Tensor]) -> list[MeasuredPart]:
        return [self.proposal_generator.cost([tuple(maps[name].shape) for name in self.features])]

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """Losses in training mode, proposals otherwise; samples as those of `GeneralizedRCNN`."""
        if not self.training:
            return self.detect(samples)
        truth = [s["instances"]["gt_boxes"].to(self.device, self.pixel_mean.dtype) for s in samples]
        return self._propose(samples, truth)[1]

    def detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A dict for each image, {"proposals": {`proposal_boxes` (p, 4) XYXY px, `objectness_logits` (p,)}}, best
        first, in the size that is wanted."""
        found, _, sizes = self._propose(samples, None)
        results = []
        for (boxes, logits), size, sample in zip(found, sizes, samples):
            height, width = sample.get("height", size[0]), sample.get("width", size[1])
            if (height, width) != tuple(size):
                boxes = boxes * boxes.new_tensor([width / size[1], height / size[0]]).repeat(2)
            boxes = box_ops.clip(boxes, height, width)
            kept = box_ops.nonempty(boxes).nonzero()[:, 0]
            results.append({"proposals": {"proposal_boxes": boxes[kept], "objectness_logits": logits[kept]}})
        return results

    def _propose(
        self, samples: Sequence[Mapping[str, Any]], truth: Sequence[torch.Tensor] | None
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], dict[str, torch.Tensor], list[tuple[int, int]]]:
        x, sizes = self.batch([s["image"] for s in samples])
        maps, areas = self.backbone.features(x, image_area(self.backbone.padding, sizes))
        found, losses = self.proposal_generator(
            [maps[name] for name in self.features], [areas[name] for name in self.features], sizes, truth
        )
        return found, losses, sizes


def check_proposal_network(cfg: CfgNode) -> None:
    """Refuse values of the keys that it reads that cannot be.

    Raises:
        ConfigError: naming the key.
    """
    check_proposals(cfg)
    check_no_masks(cfg)
    if cfg.TEST.TILE.SIZE:
        raise ConfigError(
            f"TEST.TILE.SIZE is {cfg.TEST.TILE.SIZE}, and the proposals of windows are not merged: set it to 0 for "
            "MODEL.META_ARCHITECTURE ProposalNetwork."
        )


@META_ARCHITECTURES.register(name="ProposalNetwork")
def proposal_network(cfg: CfgNode) -> ProposalNetwork:
    """What MODEL.PROPOSAL_GENERATOR.NAME names, on the maps of MODEL.RPN.IN_FEATURES."""
    backbone = build_backbone(cfg)
    features = check_features(cfg, "RPN", backbone)
    return ProposalNetwork(
        backbone=backbone,
        proposal_generator=build_proposal_generator(cfg, backbone, features),
        features=features,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )


MODEL_FACTS.register(
    ModelFacts(
        class_keys=(),
        tasks=lambda cfg: ("box_proposals",),
        norms=lambda cfg: ("MODEL.FPN.NORM",),
        check=check_proposal_network,
    ),
    name="ProposalNetwork",
)
