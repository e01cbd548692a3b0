"""The recall of box proposals, as Detectron2 evaluates them: its box_proposals task."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import comm
from ..detection.boxes import pairwise_iou
from ..files import write_json
from .evaluator import new_images

if TYPE_CHECKING:
    from ..data.coco import CocoDataset

LIMITS = (100, 1000)  # proposals of an image that are looked at
# Area of an object, px^2, both ends included.
AREAS = {"": (0.0, 1e5**2), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e5**2)}
THRESHOLDS = torch.arange(0.5, 0.95 + 1e-5, 0.05)
NAMES = tuple(f"AR{area}@{limit}" for limit in LIMITS for area in AREAS)

logger = logging.getLogger(__name__)


class BoxProposalEvaluator:
    """`AR@100`, `AR@1000` and those of small, medium and large objects, in percent: the share of the objects that a
    proposal covers, averaged over IoU 0.5 to 0.95. Every object takes another proposal.

    The objects of an image without any proposal count as missed, where Detectron2 leaves them out.

    Args:
        dataset: the data set; its images are those evaluated on.
        output_folder: the run's, where `inference/metrics.json` is written; None writes nothing.
    """

    metrics = tuple(f"box_proposals/{name}" for name in NAMES)

    def __init__(self, dataset: CocoDataset, output_folder: str | Path | None = None) -> None:
        self.dataset = dataset
        self.output_folder = None if output_folder is None else Path(output_folder)
        self._position = {dataset.image(index).id: index for index in range(len(dataset))}
        self.reset()

    def reset(self) -> None:
        """Forget what was found."""
        self._covered: dict[Hashable, dict[str, list[float]]] = {}

    def process(self, samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take {"proposals": {`proposal_boxes` (p, 4), `objectness_logits` (p,)}} of each sample.

        Raises:
            DataError: an image that is not in the data set.
        """
        new = new_images(samples, outputs, known=self._position, seen=self._covered, source=self.dataset.json_path)
        for image_id, _, output in new:
            found = output["proposals"]
            truth = self.dataset.annotations(self._position[image_id], crowds=False, masks=False)
            order = found["objectness_logits"].argsort(descending=True)
            proposals = found["proposal_boxes"][order].float().cpu()
            boxes, areas = torch.from_numpy(truth.boxes).float(), np.asarray(truth.areas)
            self._covered[image_id] = {
                f"AR{area}@{limit}": covered(
                    boxes[torch.from_numpy((areas >= least) & (areas <= most))], proposals[:limit]
                ).tolist()
                for limit in LIMITS
                for area, (least, most) in AREAS.items()
            }

    def evaluate(self) -> dict[str, dict[str, float]]:
        """The recalls on the first process, `{}` elsewhere; nan where no object is of that size."""
        merged: dict[Hashable, dict[str, list[float]]] = {}
        for part in comm.gather(self._covered):
            merged = {**part, **merged}
        if not comm.is_main_process():
            return {}
        scores = {
            name: 100 * average_recall([x for image in merged.values() for x in image.get(name, ())]) for name in NAMES
        }
        logger.info("box_proposals: %s", ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        if self.output_folder is not None:
            plain = {name: None if math.isnan(value) else value for name, value in scores.items()}
            write_json(self.output_folder / "inference" / "metrics.json", {"box_proposals": plain}, indent=2)
        return {"box_proposals": scores}


def covered(boxes: torch.Tensor, proposals: torch.Tensor) -> torch.Tensor:
    """The IoU of each object (n, 4) with a proposal (p, 4) of its own, 0 where none is left: again and again the pair
    of the highest is taken. (n,), falling."""
    found = torch.zeros(len(boxes))
    if not len(proposals):
        return found
    overlap = pairwise_iou(proposals, boxes)
    for number in range(min(len(proposals), len(boxes))):
        best, by = overlap.max(0)
        found[number], at = best.max(0)
        overlap[by[at], :] = -1
        overlap[:, at] = -1
    return found


def average_recall(overlaps: Sequence[float]) -> float:
    """The share of the objects that are covered, averaged over the thresholds; nan without objects."""
    if not len(overlaps):
        return math.nan
    values = torch.tensor(list(overlaps), dtype=torch.float32)
    return float((values[:, None] >= THRESHOLDS).float().mean(0).mean())
