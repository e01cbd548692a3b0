"""The one figure of each task that an evaluation is summed up by."""

from __future__ import annotations

from collections.abc import Mapping

Metrics = Mapping[str, Mapping[str, float]]

# Of a task the first of these that it has: AP of boxes, masks and keypoints, panoptic quality, (m)IoU of classes of
# pixels, the recall of proposals.
FIGURES = ("AP", "PQ", "mIoU", "IoU", "AR@1000")


def figures(metrics: Metrics) -> dict[str, float]:
    """`{"bbox AP": 40.1, "panoptic_seg PQ": 30.2}`, in percent; tasks that have none of `FIGURES` are left out."""
    found: dict[str, float] = {}
    for task, values in metrics.items():
        name = next((name for name in FIGURES if name in values), None)
        if name is not None:
            found[f"{task} {name}"] = values[name]
    return found
