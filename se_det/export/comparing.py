"""How far the outputs of an exported detector are from PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

FOUND = ("boxes", "scores", "classes", "counts")  # the outputs of every detector that finds objects
# Of what rounding decides: detections and masks' cells that may differ, one in so many, and pixels' classes.
DETECTIONS, CELLS, PIXELS = 100, 1000, 1000


def detector_differences(
    outputs: Sequence[str], ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]
) -> dict[str, float]:
    """How far the outputs of a detector are apart: `boxes` with scores and classes, what else there is of each
    detection (see `detections_difference`; coordinates of keypoints as a share of 1000 px), `sem_seg` (see
    `pixels_difference`)."""
    both = [dict(zip(outputs, values, strict=True)) for values in (ours, theirs)]
    pixels = [values.pop("sem_seg", None) for values in both]
    found: dict[str, float] = {}
    if "counts" in both[0]:
        for values in both:
            if "keypoints" in values:
                points = values["keypoints"]
                values["keypoints"] = torch.cat([points[..., :2] / 1000, points[..., 2:]], -1)
        plain = [[values[name] for name in FOUND] for values in both]
        found["boxes"] = detections_difference(*plain)
        for name in [name for name in both[0] if name not in FOUND]:
            found[name] = detections_difference(*([*own, values[name]] for own, values in zip(plain, both)))
    if pixels[0] is not None:
        found["sem_seg"] = pixels_difference(*pixels)
    return found


def pixels_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The share of pixels (N, H, W) of another class; 0 up to one in a thousand: rounding decides ties."""
    if ours.shape != theirs.shape:
        return math.inf
    share = float((ours != theirs).double().mean())
    return share if share * PIXELS > 1 else 0.0


def detections_difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """The largest difference of a detection to the nearest one of its image and class among the others: boxes as a
    share of 1000 px, scores and masks as they are. Infinite where there are more or fewer, but for one in a hundred:
    rounding decides about a score at the threshold and an overlap at that of NMS. Of a mask one cell in a thousand may
    differ, as rounding decides which cells PointRend looks at anew.

    Args:
        ours, theirs: `boxes`, `scores`, `classes`, `counts` and what else there is of each detection.
    """
    largest = 0.0
    for n, (count, other) in enumerate(zip(ours[3].tolist(), theirs[3].tolist(), strict=True)):
        allowed = max(count, other) // DETECTIONS
        if abs(count - other) > allowed:
            return math.inf
        if min(count, other) == 0:
            continue
        rows = [
            torch.cat([boxes[n, :k] / 1000, scores[n, :k, None], classes[n, :k, None] * 10.0], 1)
            for (boxes, scores, classes, *_), k in ((ours, count), (theirs, other))
        ]
        if any(row.isnan().any() for row in rows):
            return math.inf  # cdist passes over what is not a number
        apart = torch.cdist(*rows, p=math.inf)
        near, at = apart.min(1)
        for one, another in zip(ours[4:], theirs[4:], strict=True):
            cells = (one[n, :count] - another[n, at]).reshape(count, -1).abs().sort(1).values
            near = near.maximum(cells[:, -1 - cells.shape[1] // CELLS])
        worst = torch.cat([near, apart.min(0).values]).sort().values  # NaN last
        worst = float(worst[len(worst) - 2 * allowed - 1])
        if math.isnan(worst):
            return math.inf
        largest = max(largest, worst)
    return largest
