"""How far colour and templates alone go on the shapes data set: a detector without any learning, scored as COCO does.

    python datasets/shape_baseline.py [--root FOLDER] [--split val]

An image is cut into segments by colour (k-means and flood fills over a mean-shift filtered image) and by its edges
(regions that closed edges enclose). A segment, whitened so that stretching and shearing drop out, is compared with the
whitened templates of the five shapes in 72 turns; the best intersection over union gives class and score. Each result's
mask is the segment, also tried with gaps closed and holes filled; of overlapping results the better one stays.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shape_scenes import CLASSES, shape_mask

GRID = 40  # samples a side of a whitened segment, over -REACH..REACH standard deviations
REACH = 2.6
TURNS = 72
SMALLEST = 70  # px of area; the smallest visible parts are a little larger
MARGIN = 4  # px around a segment, room for closing gaps
MOST_RESULTS = 100  # an image, as COCO counts
LOWEST_SCORE = 0.6  # intersection over union with a template


def _whitening(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (x, y) of a mask and the matrix that takes whitened coordinates back to px."""
    y, x = np.nonzero(mask)
    points = np.stack([x, y]).astype(np.float64)
    mean = points.mean(axis=1)
    values, vectors = np.linalg.eigh(np.cov(points) + 0.08 * np.eye(2))
    return mean, vectors * np.sqrt(values)


def _whiten(mask: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """`mask` seen in whitened coordinates, once for each turn (radians); bool (len(turns), GRID * GRID)."""
    mean, back = _whitening(mask)
    line = (np.arange(GRID) + 0.5) / GRID * 2 * REACH - REACH
    grid = np.stack(np.meshgrid(line, line)).reshape(2, -1)
    seen = []
    for turn in turns:
        cos, sin = np.cos(turn), np.sin(turn)
        x, y = np.rint(back @ (np.array([[cos, -sin], [sin, cos]]) @ grid) + mean[:, None]).astype(int)
        within = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
        seen.append(within & mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)])
    return np.stack(seen)


class Templates:
    """The five shapes, whitened, in all turns."""

    def __init__(self) -> None:
        turns = np.arange(TURNS) * 2 * np.pi / TURNS
        masks = [np.pad(shape_mask(name, 160, 0.0), 4) for name in CLASSES]
        self.masks = np.concatenate([_whiten(mask, turns) for mask in masks]).astype(np.float32)
        self.areas = self.masks.sum(axis=1)

    def match(self, masks: list[np.ndarray]) -> list[tuple[int, float]]:
        """For each mask the class whose template fits best, and its intersection over union, 0..1."""
        if not masks:
            return []
        seen = np.concatenate([_whiten(mask, np.zeros(1)) for mask in masks]).astype(np.float32)
        common = seen @ self.masks.T
        overlap = common / (self.areas + seen.sum(axis=1, keepdims=True) - common)
        best = overlap.argmax(axis=1)
        return [(int(i) // TURNS, float(row[i])) for i, row in zip(best, overlap)]


@dataclass
class Segment:
    """A candidate: its mask cut to its box (with a margin of MARGIN px), and where that lies in the image."""

    mask: np.ndarray  # bool (h, w)
    top: int
    left: int
    trust: float = 1.0  # a form that was mended counts less than one that was seen: a filled ring is a disc

    def pixels(self, width: int) -> np.ndarray:
        """Indices of its pixels in the flattened image of that width."""
        rows, columns = np.nonzero(self.mask)
        return (rows + self.top) * width + columns + self.left

    def forms(self) -> list[Segment]:
        """The segment as it is, with the gaps that a texture leaves closed, and without holes."""
        plane = self.mask.astype(np.uint8)
        closed = cv2.morphologyEx(plane, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled = cv2.drawContours(np.zeros_like(plane), contours, -1, 1, cv2.FILLED)
        forms = {}  # equal counts are equal forms here
        for form, trust in ((plane, 1.0), (closed, 0.98), (filled, 0.92)):
            forms.setdefault(int(form.sum()), Segment(form > 0, self.top, self.left, trust))
        return list(forms.values())


def _components(plane: np.ndarray, top: int, left: int, frame: tuple[int, int]) -> list[Segment]:
    """Connected parts of `plane`, a part of an image of size `frame`, that are neither tiny nor the backdrop."""
    plane = cv2.morphologyEx(np.pad(plane, MARGIN).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=4)
    segments = []
    for i in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[i])
        x0, y0 = x + left - MARGIN, y + top - MARGIN
        if area >= SMALLEST and x0 > 0 and y0 > 0 and x0 + w < frame[1] and y0 + h < frame[0]:
            part = np.pad(parts[y : y + h, x : x + w] == i, MARGIN)
            segments.append(Segment(part, y0 - MARGIN, x0 - MARGIN))
    return segments


def _by_colour(image: np.ndarray, clusters: int) -> list[Segment]:
    """Parts of one colour, of as many as k-means finds over Lab."""
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB).reshape(-1, 3).astype(np.float32)
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 1.0)
    _, labels, _ = cv2.kmeans(lab, clusters, None, stop, 1, cv2.KMEANS_PP_CENTERS)
    labels = labels.reshape(image.shape[:2])
    segments = []
    for i in range(clusters):
        plane = (labels == i).astype(np.uint8)
        closed = cv2.morphologyEx(plane, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
        for form in (plane, closed):
            segments += _components(form > 0, 0, 0, image.shape[:2])
    return segments


def _by_flooding(image: np.ndarray, tolerance: int) -> list[Segment]:
    """Parts within which neighbours differ by at most `tolerance`."""
    height, width = image.shape[:2]
    mask = np.zeros((height + 2, width + 2), np.uint8)  # floodFill wants a frame of one pixel
    segments = []
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | (255 << 8)
    for y in range(0, height, 3):
        for x in range(0, width, 3):
            if mask[y + 1, x + 1]:
                continue
            area, _, _, (left, top, w, h) = cv2.floodFill(
                image, mask, (x, y), 0, (tolerance,) * 3, (tolerance,) * 3, flags
            )
            filled = mask[top + 1 : top + h + 1, left + 1 : left + w + 1]
            if area >= SMALLEST:
                segments += _components(filled == 255, top, left, (height, width))
            filled[filled == 255] = 1
    return segments


def _by_edges(image: np.ndarray, low: int) -> list[Segment]:
    """What closed edges enclose, and the edges' own connected parts, whose filled form is what they surround."""
    edges = np.max([cv2.Canny(np.ascontiguousarray(image[..., c]), low, 2.5 * low) for c in range(3)], axis=0)
    closed = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    enclosed = _components(~closed, 0, 0, image.shape[:2])
    # What edges surround does not hold the edge's own pixels: grow it by them.
    grown = [
        Segment(cv2.dilate(s.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, s.top, s.left) for s in enclosed
    ]
    return grown + _components(cv2.dilate(edges, np.ones((3, 3), np.uint8)) > 0, 0, 0, image.shape[:2])


def segments_of(image: np.ndarray) -> list[Segment]:
    """Candidate instances of a BGR image."""
    smooth = cv2.pyrMeanShiftFiltering(cv2.medianBlur(image, 5), 8, 20)
    segments = []
    for clusters in (4, 7, 11):
        segments += _by_colour(smooth, clusters)
    for tolerance in (4, 8, 14):
        segments += _by_flooding(smooth, tolerance)
    for source in (image, smooth):
        for low in (40, 80):
            segments += _by_edges(source, low)
    return [form for segment in segments for form in segment.forms()]


def detect(image: np.ndarray, templates: Templates) -> list[tuple[int, float, np.ndarray]]:
    """Class index, score and bool mask of each thing found, best first."""
    height, width = image.shape[:2]
    found = []
    segments = segments_of(image)
    for segment, (category, overlap) in zip(segments, templates.match([segment.mask for segment in segments])):
        if overlap >= LOWEST_SCORE:
            # Between equal fits the larger segment is likelier a whole shape than a piece of a texture.
            pixels = segment.pixels(width)
            found.append((segment.trust * overlap * min(1.0, 0.7 + len(pixels) / 4000), category, pixels))
    found.sort(key=lambda item: -item[0])
    kept = []
    planes, areas = np.zeros((MOST_RESULTS, height * width), bool), np.zeros(MOST_RESULTS, int)
    for score, category, pixels in found:
        n = len(kept)
        common = np.count_nonzero(planes[:n, pixels], axis=1)
        if (common < 0.5 * (areas[:n] + len(pixels) - common)).all():
            planes[n, pixels], areas[n] = True, len(pixels)
            kept.append((category, score, planes[n].reshape(height, width)))
        if len(kept) == MOST_RESULTS:
            break
    return kept


def results_of(coco: COCO, folder: Path) -> list[dict]:
    """COCO results, with boxes and masks, for all images of `coco`."""
    templates = Templates()
    results = []
    for image_id, info in sorted(coco.imgs.items()):
        for category, score, mask in detect(cv2.imread(str(folder / info["file_name"])), templates):
            rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            results.append(
                {
                    "image_id": image_id,
                    "category_id": category + 1,
                    "score": score,
                    "bbox": [float(value) for value in coco_mask.toBbox(rle)],
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                }
            )
    return results


def score(coco: COCO, results: list[dict]) -> dict[str, float]:
    """AP and AP50 of boxes and of masks, in percent."""
    numbers = {}
    for task in ("bbox", "segm"):
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, coco.loadRes(results), task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        numbers[f"{task} AP"], numbers[f"{task} AP50"] = (round(100 * float(evaluation.stats[i]), 2) for i in (0, 1))
    return numbers


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Score a detector without learning on the shapes data set.")
    parser.add_argument("--root", default=os.environ.get("DETECTRON2_DATASETS", "datasets"))
    parser.add_argument("--split", default="val", choices=("train", "val"))
    given = parser.parse_args(arguments)
    folder = Path(given.root) / "shapes"
    if not (folder / "annotations").is_dir():
        print(f"shape_baseline: {folder} does not hold the shapes set; run datasets/make_shapes.py.", file=sys.stderr)
        return 1
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "annotations" / f"instances_{given.split}.json"))
    print(json.dumps(score(coco, results_of(coco, folder / given.split))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
