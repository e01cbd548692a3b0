"""Classes of pixels and panoptic segments drawn on their image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from .drawing import class_color, write_name

OPACITY = 0.55
NAMED_FROM = 0.004  # of the image: smaller regions have no name
STUFF_COLORS = 500  # where colours of stuff begin, other than those of things


def draw_labels(image: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """A copy of `image` in which each class of pixels has its colour, and its largest region its name.

    Args:
        image: uint8 (H, W, 3), BGR.
        labels: integers (H, W); what is no position in `names` stays as it is.
        names: of the classes.
    """
    present = [label for label in np.unique(labels).tolist() if 0 <= label < len(names)]
    regions = [(labels == label, class_color(STUFF_COLORS + label), names[label]) for label in present]
    return _painted(image, regions)


def draw_segments(
    image: np.ndarray, segments: np.ndarray, infos: Sequence[Mapping[str, Any]], thing_names: Sequence[str],
    stuff_names: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """A copy of `image` in which each segment has its class's colour, its outline and its name.

    Args:
        image: uint8 (H, W, 3), BGR.
        segments, infos: of `detection.architectures.panoptic_fpn.combine_segments`.
        thing_names, stuff_names: of the classes of instances and of pixels.
    """
    regions = []
    for info in sorted(infos, key=lambda info: info["isthing"]):
        label = info["category_id"]
        color = class_color(label if info["isthing"] else STUFF_COLORS + label)
        name = (thing_names if info["isthing"] else stuff_names)[label]
        score = f" {info['score']:.0%}" if "score" in info else ""
        regions.append((segments == info["id"], color, f"{name}{score}"))
    return _painted(image, regions)


def _painted(image: np.ndarray, regions: Sequence[tuple[np.ndarray, tuple[int, int, int], str]]) -> np.ndarray:
    canvas = image.copy()
    for mask, color, _ in regions:
        canvas[mask] = np.rint(canvas[mask] * (1 - OPACITY) + np.array(color) * OPACITY).astype(np.uint8)
    for mask, color, _ in regions:
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, tuple(value // 2 for value in color), 1, cv2.LINE_8)
    for mask, color, name in regions:
        if mask.sum() >= NAMED_FROM * mask.size:
            write_name(canvas, name, _middle(mask), color)
    return canvas


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """x and y of the pixel of a region that is farthest from its edge."""
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(x), int(y)
