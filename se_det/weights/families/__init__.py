"""Who wrote a weight file, and how its keys become ours and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...errors import WeightsError, suggestion
from .caffe import CAFFE, MATCONVNET
from .conventions import WeightConventions, differences
from .detectors import MMDETECTION, TORCHVISION_DETECTION
from .detectron2 import CAFFE2, DETECTRON2, SE_DET
from .family import Family
from .one_stage import MMDETECTION_RETINANET, TORCHVISION_ONE_STAGE
from .pytorch import CADENE, MMPRETRAIN, PYTORCHINSIGHT, SP_RG, TIMM, TIMM_LEGACY, TORCHVISION
from .regnet import DETECTRON2_REGNET, TORCHVISION_REGNET

__all__ = ["FAMILIES", "SE_DET", "Family", "WeightConventions", "detect_family", "differences", "family_named"]

FAMILIES = {
    family.name: family
    for family in (
        CAFFE, MATCONVNET, CADENE, TIMM_LEGACY, TIMM, MMPRETRAIN, PYTORCHINSIGHT, SP_RG, TORCHVISION, DETECTRON2,
        CAFFE2, DETECTRON2_REGNET, TORCHVISION_REGNET, TORCHVISION_DETECTION, MMDETECTION,
        TORCHVISION_ONE_STAGE, MMDETECTION_RETINANET, SE_DET,
    )
}  # fmt: skip


def family_named(name: str) -> Family:
    """The family of this name.

    Raises:
        WeightsError: there is none.
    """
    if name not in FAMILIES:
        raise WeightsError(
            f"There is no family '{name}' of weights: use one of {', '.join(FAMILIES)}.{suggestion(name, FAMILIES)}"
        )
    return FAMILIES[name]


def detect_family(source: str, tensors: Mapping[str, torch.Tensor], *, pickled: bool = False) -> Family | None:
    """The family whose keys these are, None when they are nobody's.

    Args:
        source: the file, for the sentence.
        pickled: the file is one of Detectron2's pickles, whose names are ours as well.

    Raises:
        WeightsError: they are the keys of several families.
    """
    other = SE_DET if pickled else DETECTRON2
    found = [family for family in FAMILIES.values() if family is not other and family.matches(tensors)]
    if len(found) > 1:
        raise WeightsError(
            f"{source} has keys of several families: name the one it is of with --family "
            f"{' or --family '.join(family.name for family in found)}."
        )
    return found[0] if found else None
