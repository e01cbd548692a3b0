"""Detections drawn on their image: masks, boxes and labels, with OpenCV and, for names beyond ASCII, with fonts."""

from __future__ import annotations

import colorsys
import unicodedata
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ..fonts import can_draw, text_mask

FONT = cv2.FONT_HERSHEY_SIMPLEX
MASK_OPACITY = 0.4
MAX_HIDDEN = 0.05  # of a label may cover other labels: margins, not letters
LEAST_KEYPOINT = 0.05  # a keypoint of a lower score is not drawn, as in Detectron2
MIN_TEXT = 8  # px from the foot to the top of a capital; below this letters run together
# Text sizes below are fractions of the image's short side, so that a picture looks alike at every size.
TEXT_FRACTION = 1 / 45
LINE_FRACTION = 1 / 320


@dataclass(frozen=True)
class _Label:
    text: str
    width: int  # px, with the margin
    height: int
    rise: int  # from the label's lower edge to the foot of the letters


def draw_detections(
    image: np.ndarray,
    instances: Mapping[str, torch.Tensor],
    class_names: Sequence[str],
    *,
    score_threshold: float = 0.5,
    enlarge_below: int = 0,
    skeleton: Sequence[tuple[int, int]] = (),
) -> np.ndarray:
    """A copy of `image` with masks blended in, boxes, and labels such as "dog 98%" that stay inside the image.

    A class has the same colour in every picture. Labels move out of one another's way; in a small image they are
    shortened, and a label that would hide those of surer detections is left out (its box and mask are not).

    Args:
        image: uint8 (H, W, 3), BGR.
        instances: `pred_boxes` (m, 4) XYXY px of `image`, `scores` (m,), `pred_classes` (m,), and where there are
            masks `pred_masks` bool (m, H, W), or a list of `crop_masks`, where there are keypoints `pred_keypoints`
            (m, K, 3), of which those are drawn whose last number is at least `LEAST_KEYPOINT`. Without `scores`, as for
            annotations, labels are names alone.
        class_names: a name per class index.
        score_threshold: detections that score less are left out.
        enlarge_below: an image whose long side has fewer pixels is enlarged by the smallest whole factor that
            reaches them before drawing, for labels to be readable on tiny images; 0 keeps every image's size.
        skeleton: pairs of keypoints that are joined by a line where both are drawn.

    Returns:
        uint8, of the size of `image` or the enlarged one.

    Raises:
        ValueError: an image or masks of another form.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"The image must be uint8 (H, W, 3), but it is {image.dtype} {image.shape}.")
    scored = "scores" in instances
    scores = _array(instances["scores"]) if scored else np.ones(len(instances["pred_boxes"]))
    shown = np.flatnonzero(scores >= score_threshold)
    scores = scores[shown]
    boxes = _array(instances["pred_boxes"])[shown].astype(np.float64).reshape(-1, 4)
    classes = _array(instances["pred_classes"])[shown].astype(int)
    masks = None
    if "pred_masks" in instances:
        masks = _array(instances["pred_masks"])[shown].astype(np.uint8)
        if masks.shape[1:] != image.shape[:2]:
            raise ValueError(f"The masks are {masks.shape[1:]} px, but the image is {image.shape[:2]}.")
    keypoints = None
    if "pred_keypoints" in instances:
        keypoints = _array(instances["pred_keypoints"])[shown].astype(np.float64)

    crops = [instances["crop_masks"][at] for at in shown.tolist()] if "crop_masks" in instances else None

    factor = max(1, -(-enlarge_below // max(image.shape[:2])))
    canvas = image.copy()
    if factor > 1:
        size = (image.shape[1] * factor, image.shape[0] * factor)
        canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        boxes = boxes * factor
        keypoints = None if keypoints is None else keypoints * [factor, factor, 1]
    height, width = canvas.shape[:2]
    boxes = np.rint(np.clip(boxes, 0, [width - 1, height - 1, width - 1, height - 1])).astype(int)
    line = max(1, round(min(height, width) * LINE_FRACTION))

    # Large objects first, so that small ones in front of them stay visible.
    extent = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-extent, kind="stable"):
        color = class_color(classes[index])
        if masks is not None:
            mask = cv2.resize(masks[index], (width, height), interpolation=cv2.INTER_NEAREST)
            _blend_mask(canvas, mask, color, line)
        if crops is not None:
            left, top, mask = crops[index].left * factor, crops[index].top * factor, crops[index].pixels()
            mask = mask.astype(np.uint8).repeat(factor, axis=0).repeat(factor, axis=1)
            _blend_mask(canvas[top : top + mask.shape[0], left : left + mask.shape[1]], mask, color, line)
        x0, y0, x1, y1 = map(int, boxes[index])
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, line, cv2.LINE_8)
        if keypoints is not None:
            _draw_keypoints(canvas, keypoints[index], skeleton, color, line)

    taken = np.empty((0, 4), int)
    for index in np.argsort(-scores, kind="stable"):  # the surest detections get the best places
        score = scores[index] if scored else None
        label = _longest_label(class_names[classes[index]], classes[index], score, (height, width))
        place = label and _place(label, boxes[index], taken, (height, width), line)
        if place:
            x, y = place
            taken = np.append(taken, [[x, y, x + label.width, y + label.height]], 0)
            _write(canvas, label, (x, y), class_color(classes[index]), line)
    return canvas


def _draw_keypoints(
    canvas: np.ndarray, keypoints: np.ndarray, skeleton: Sequence[tuple[int, int]], color: tuple[int, int, int],
    line: int,
) -> None:  # fmt: skip
    """Bones, and over them the keypoints, as discs with an edge that shows on every ground."""
    drawn = (keypoints[:, 2] >= LEAST_KEYPOINT) & (np.abs(keypoints[:, :2]) < 2**15).all(1)
    places = [(int(x), int(y)) for x, y in np.floor(np.where(drawn[:, None], keypoints[:, :2], 0))]
    for a, b in skeleton:
        if drawn[a] and drawn[b]:
            cv2.line(canvas, places[a], places[b], color, line, cv2.LINE_AA)
    for at in np.flatnonzero(drawn):
        cv2.circle(canvas, places[at], 2 * line, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, places[at], 2 * line, color, line, cv2.LINE_AA)


def write_name(canvas: np.ndarray, name: str, middle: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Write a name on `canvas` uint8 (H, W, 3) about a point (x, y), inside the image; nothing where it has no room."""
    height, width = canvas.shape[:2]
    label = _longest_label(name, 0, None, (height, width))
    if label is not None:
        x = min(max(middle[0] - label.width // 2, 0), width - label.width)
        y = min(max(middle[1] - label.height // 2, 0), height - label.height)
        _write(canvas, label, (x, y), color, 1)


def class_color(index: int) -> tuple[int, int, int]:
    """The BGR colour of a class: neighbouring indices get hues far apart."""
    hue = (int(index) * 0.6180339887 + 0.02) % 1.0  # the golden ratio spreads any number of hues evenly
    value = (1.0, 0.8)[int(index) // 13 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(blue * 255), round(green * 255), round(red * 255)


def _array(values: torch.Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _blend_mask(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], line: int) -> None:
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return
    part = canvas[y : y + height, x : x + width]
    inside = mask[y : y + height, x : x + width].astype(bool)
    part[inside] = np.rint(part[inside] * (1 - MASK_OPACITY) + np.array(color) * MASK_OPACITY).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, line, cv2.LINE_8)


def _text_size(image_size: tuple[int, int]) -> tuple[float, int, int]:
    """OpenCV's font scale, the strokes' thickness and the margin around text (px)."""
    tall = max(MIN_TEXT, round(min(image_size) * TEXT_FRACTION))
    return tall / 21, max(1, round(tall / 10)), max(1, round(tall / 5))  # a capital is 21 units high in this font


def _longest_label(name: str, index: int, score: float | None, image_size: tuple[int, int]) -> _Label | None:
    """The longest form of the label that the image has room for; None when it has room for none."""
    scale, thickness, margin = _text_size(image_size)

    def fitting(text: str) -> _Label | None:
        if text.isascii():
            (wide, tall), below = cv2.getTextSize(text, FONT, scale, thickness)
        else:
            ink, below = text_mask(text, round(21 * scale))
            tall, wide = ink.shape[0] - below, ink.shape[1]
        label = _Label(text, wide + 2 * margin, tall + below + 2 * margin, below + margin)
        return label if label.width <= image_size[1] and label.height <= image_size[0] else None

    name = _printable(name, index)
    whole = fitting(name if score is None else f"{name} {score:.0%}") or fitting(name)
    if whole:
        return whole
    most = bisect_left(range(1, len(name)), True, key=lambda length: not fitting(f"{name[:length]}."))
    return fitting(f"{name[:most]}.") if most else None


def _printable(name: str, index: int) -> str:
    """What can be drawn of a name: all of it where fonts have it; else without its accents, or its class's index."""
    name = "".join(char if char.isprintable() else " " for char in unicodedata.normalize("NFC", name)).strip()
    if name.isascii() and name:
        return name
    if name and can_draw(name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii").strip()
    return plain if len(plain) * 2 > len(name) else f"class {index}"


def _place(
    label: _Label,
    box: np.ndarray,
    taken: np.ndarray,
    image_size: tuple[int, int],
    line: int,
) -> tuple[int, int] | None:
    """The label's upper left corner: the first place by its box that is free, else the one that hides least of other
    labels; None when it would hide too much to leave both readable."""
    x0, y0, x1, y1 = map(int, box)
    over = line // 2
    left, right = x0 - over, x1 + over + 1 - label.width
    above, below = y0 - over - label.height, y1 + over + 1
    inside_top, inside_bottom = y0 - over, y1 + over + 1 - label.height
    best, least = None, MAX_HIDDEN * label.width * label.height
    for y in (above, inside_top, below, inside_bottom):
        for x in (left, right, (left + right) // 2):
            # There is no room above a box at the image's edge: pushed inside, that place becomes the next one.
            place = (min(max(x, 0), image_size[1] - label.width), min(max(y, 0), image_size[0] - label.height))
            hidden = _overlap(place, label, taken)
            if not hidden:
                return place
            if hidden < least:
                best, least = place, hidden
    return best


def _overlap(place: tuple[int, int], label: _Label, taken: np.ndarray) -> int:
    """Px that a label would have in common with those before it, (n, 4) XYXY."""
    corner = np.array([place[0] + label.width, place[1] + label.height])
    common = np.minimum(corner, taken[:, 2:]) - np.maximum(place, taken[:, :2])
    return int(common.clip(min=0).prod(1).sum())


def _write(canvas: np.ndarray, label: _Label, place: tuple[int, int], color: tuple[int, int, int], line: int) -> None:
    x, y = place
    scale, thickness, margin = _text_size(canvas.shape[:2])
    part = canvas[y : y + label.height, x : x + label.width]
    part[:] = np.array(color) * 0.6  # a darker edge parts labels of one class that touch
    part[line:-line, line:-line] = color
    blue, green, red = color
    bright = 0.114 * blue + 0.587 * green + 0.299 * red > 130
    ink = (0, 0, 0) if bright else (255, 255, 255)
    foot = (x + margin, y + label.height - label.rise)
    if not label.text.isascii():
        coverage, below = text_mask(label.text, round(21 * scale))
        top = foot[1] - (coverage.shape[0] - below)
        letters = canvas[top : top + coverage.shape[0], foot[0] : foot[0] + coverage.shape[1]]
        share = coverage[: letters.shape[0], : letters.shape[1], None] / 255
        letters[:] = np.rint(letters * (1 - share) + np.array(ink) * share).astype(np.uint8)
        return
    cv2.putText(canvas, label.text, foot, FONT, scale, ink, thickness, cv2.LINE_AA)
