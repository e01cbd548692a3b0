"""The anchors of a config, level by level, and how many objects each can find."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from fvcore.common.config import CfgNode

from ...config.loading import get_key
from ...detection.registry import model_facts
from ..recipe.anchors import IOU, best_overlaps


@dataclass(frozen=True)
class AnchorLevel:
    """The anchors of one feature map.

    Attributes:
        name: of the map, such as "p3".
        stride: px between anchors; None where the map's name does not tell.
        sizes: square roots of areas, px.
        ratios: heights over widths.
        overlaps: float64 (n,), each object's IoU with the anchor that overlaps it most; None without a stride.
    """

    name: str
    stride: int | None
    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    overlaps: np.ndarray | None

    @property
    def recall(self) -> float:
        """The share of the objects that these anchors overlap by half; nan where that is not known."""
        return recall_of(self.overlaps)


def anchor_levels(cfg: CfgNode, boxes: np.ndarray) -> list[AnchorLevel]:
    """The levels of the maps that have anchors; none where the detector has no anchors.

    Args:
        boxes: (n, 2) widths and heights px of objects.
    """
    key = model_facts(cfg).anchor_maps
    names = list(get_key(cfg, key)) if key else []
    settings = cfg.MODEL.ANCHOR_GENERATOR
    sizes, ratios = (_per_level(values, len(names)) for values in (settings.SIZES, settings.ASPECT_RATIOS))
    levels = []
    for name, level_sizes, level_ratios in zip(names, sizes, ratios):
        stride = _stride(name)
        overlaps = None if stride is None else best_overlaps(boxes, [level_sizes], level_ratios, [stride])
        levels.append(AnchorLevel(name, stride, tuple(level_sizes), tuple(level_ratios), overlaps))
    return levels


def best_of_levels(levels: list[AnchorLevel]) -> np.ndarray | None:
    """float64 (n,): each object's IoU with the anchor of any level that overlaps it most; None where not known."""
    found = [level.overlaps for level in levels]
    return None if not found or any(overlaps is None for overlaps in found) else np.max(found, axis=0)


def recall_of(overlaps: np.ndarray | None) -> float:
    """The share of the objects that are overlapped by half; nan where that is not known or there are none."""
    return float("nan") if overlaps is None or not len(overlaps) else float((overlaps >= IOU).mean())


def _per_level(values: list, levels: int) -> list:
    """Detectron2's rule: one list is for all levels."""
    return list(values) * levels if len(values) == 1 else list(values)


def _stride(name: str) -> int | None:
    number = re.fullmatch(r"(?:p|res)([2-7])", name)
    return 2 ** int(number[1]) if number else None
