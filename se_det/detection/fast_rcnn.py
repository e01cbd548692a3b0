"""Fast R-CNN (Girshick, arXiv 1504.08083): an R-CNN whose proposals come with the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..errors import ConfigError
from .measured_part import MeasuredPart
from .rcnn import GeneralizedRCNN

NAME = "PrecomputedProposals"


class FastRCNN(GeneralizedRCNN):
    """A `GeneralizedRCNN` without a proposal generator: samples have `proposals`, a dict of `proposal_boxes` (p, 4),
    XYXY px of the image as it is given, best first.

    Args:
        most_proposals: of an image, for what it costs.
        shared: see `GeneralizedRCNN`.
    """

    def __init__(self, *, most_proposals: int = 1000, **shared: Any) -> None:
        super().__init__(proposal_generator=None, rpn_features=(), **shared)
        self.most_proposals = most_proposals

    def propose(
        self, samples: Sequence[Mapping[str, Any]], *_: Any
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        for sample in samples:
            if "proposals" not in sample:
                raise ConfigError(
                    f"MODEL.PROPOSAL_GENERATOR.NAME is {NAME}, and an image comes without proposals, which are read "
                    "for data sets alone (DATASETS.PROPOSAL_FILES_TRAIN, PROPOSAL_FILES_TEST). For other images "
                    "use a model with MODEL.PROPOSAL_GENERATOR.NAME RPN."
                )
        boxes = [sample["proposals"]["proposal_boxes"] for sample in samples]
        return [b.to(self.device, self.pixel_mean.dtype, non_blocking=True) for b in boxes], {}

    def inference_parts(self) -> list[nn.Module]:
        return [self.backbone, *self.roi_heads.inference_parts()]

    def score_layers(self) -> list[nn.Module]:
        return [predictor.cls_score for _, predictor in self.roi_heads.box_stages]

    def head_costs(self, maps: Mapping[str, torch.Tensor]) -> list[MeasuredPart]:
        return self.roi_heads.costs(maps[self.roi_features[0]].shape[1], self.most_proposals)


def is_fast_rcnn(cfg: CfgNode) -> bool:
    """Whether the proposals come from files.

    Raises:
        ConfigError: MODEL.LOAD_PROPOSALS and MODEL.PROPOSAL_GENERATOR.NAME say different things, or what needs images
            of other sizes is on.
    """
    given = cfg.MODEL.PROPOSAL_GENERATOR.NAME == NAME
    if given != cfg.MODEL.LOAD_PROPOSALS:
        raise ConfigError(
            f"MODEL.LOAD_PROPOSALS is {cfg.MODEL.LOAD_PROPOSALS} and MODEL.PROPOSAL_GENERATOR.NAME "
            f"{cfg.MODEL.PROPOSAL_GENERATOR.NAME}: proposals of files need True and {NAME}, those of a network False "
            "and RPN."
        )
    if not given:
        return False
    if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
        raise ConfigError(
            f"MODEL.PROPOSAL_GENERATOR.NAME {NAME} is for MODEL.META_ARCHITECTURE GeneralizedRCNN, not "
            f"{cfg.MODEL.META_ARCHITECTURE}: use RPN."
        )
    wrong = {
        "TEST.AUG.ENABLED": cfg.TEST.AUG.ENABLED, "TEST.EVAL_LOSS": cfg.TEST.EVAL_LOSS,
        "INPUT.TILE.SIZE": cfg.INPUT.TILE.SIZE, "TEST.TILE.SIZE": cfg.TEST.TILE.SIZE,
    }  # fmt: skip
    for key, value in wrong.items():
        if value:
            raise ConfigError(f"{key} is {value}, which proposals of files do not go with: set it to {type(value)()}.")
    return True
