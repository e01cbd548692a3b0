"""Evaluation of panoptic segments (Detectron2's COCOPanopticEvaluator, without panopticapi)."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fvcore.common.config import CfgNode

from .. import comm
from ..errors import DataError
from ..inference.panoptic_files import coco_segments, write_panoptic_png
from .evaluator import EVALUATORS, new_images
from .panoptic_quality import Counts, match_segments, panoptic_quality
from .pixel_evaluator import PixelEvaluator, Shown, ends

if TYPE_CHECKING:
    from ..data.coco import CocoDataset

NAMES = [f"{name}{suffix}" for suffix in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PanopticOutcome:
    """What an evaluation found, for a report.

    Attributes:
        rows: (name, whether it is a thing, counts) of each category.
        images: (PQ of the image alone, image id, (segments int32 (H, W), their COCO infos)) of the worst images and the
            best, from the worst on.
    """

    dataset: CocoDataset
    metrics: dict[str, float]
    rows: list[tuple[str, bool, Counts]]
    images: list[Shown] = field(default_factory=list)


class PanopticEvaluator(PixelEvaluator):
    """Panoptic quality, segmentation quality and recognition quality."""

    task = "panoptic_seg"
    file = "panoptic_metrics.json"

    def __init__(self, dataset: CocoDataset, output_folder: str | Path | None = None) -> None:
        """
        Args:
            dataset: with `panoptic` and `pixel_labels`.
            output_folder: the run's, where `inference/panoptic/*.png`, `inference/panoptic_predictions.json` (COCO's
                format) and `inference/panoptic_metrics.json` are written.

        Raises:
            DataError: the data set has no panoptic truth, or an image has none.
        """
        if dataset.panoptic is None or dataset.pixel_labels is None:
            raise DataError(
                f"{dataset.json_path} has no panoptic truth to evaluate against (TEST.EVALUATORS panoptic): give "
                "DATASETS.VAL_PANOPTIC_JSON, or name a data set that has one."
            )
        self.truth = dataset.panoptic.load()
        self._at: dict[Hashable, int] = {}
        for index in range(len(dataset)):
            info = dataset.image(index)
            at = self.truth.position(info.id, info.path.name)
            if at is None:
                raise DataError(f"{self.truth.json_path} has no entry of image {info.id!r} ({info.path.name}): add it.")
            self._at[info.id] = at
        super().__init__(dataset, output_folder)

    def names_of_metrics(self) -> list[str]:
        return [*NAMES, *(f"PQ-{c['name']}" for c in self.truth.categories)]

    def reset(self) -> None:
        super().reset()
        self._found: dict[Hashable, tuple[dict[int, Counts], dict[str, Any]]] = {}

    def process(self, samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take the model's `panoptic_seg` of samples. An image seen before is passed over.

        Raises:
            DataError: an image that is not in the data set, or its PNG cannot be read.
        """
        new = new_images(samples, outputs, known=self._at, seen=self._found, source=self.dataset.json_path)
        for image_id, sample, output in new:
            segments, infos = output["panoptic_seg"]
            segments = segments.cpu().numpy()
            infos = coco_segments(infos, self.dataset.category_ids, self.dataset.pixel_labels.category_ids)
            annotated = self.truth.segments(self._at[image_id])
            numbers = annotated.read()
            if numbers.shape != segments.shape:
                raise DataError(
                    f"The panoptic PNG {annotated.path} is {numbers.shape[1]} x {numbers.shape[0]} px (width x "
                    f"height), and its image {segments.shape[1]} x {segments.shape[0]}."
                )
            described = [
                {"id": number, "category_id": category, "iscrowd": crowd, "area": area}
                for number, category, crowd, area in zip(
                    *(v.tolist() for v in (annotated.ids, annotated.categories, annotated.crowd, annotated.areas))
                )
            ]
            counts = match_segments(numbers, described, segments, infos)
            name = Path(str(sample.get("file_name", image_id))).stem + ".png"
            if self.output_folder is not None:
                write_panoptic_png(self.output_folder / "inference" / "panoptic" / name, segments)
            self._found[image_id] = counts, {"image_id": image_id, "file_name": name, "segments_info": infos}
            alone = panoptic_quality(counts, self.truth.categories)[0]["PQ"]
            self._show(np.nan_to_num(alone, nan=0.0), image_id, (segments, infos))

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather, score, log and write. Every process must call it.

        Returns:
            On the first process `{"panoptic_seg": {"PQ": ..., "SQ": ..., "RQ": ..., "PQ_th": ..., ..., "PQ-<name>":
            ...}}` in percent, nan where there is nothing of a kind; elsewhere `{}`.

        Raises:
            CheckpointError: the results cannot be written.
        """
        parts = comm.gather((self._found, self._images))
        if not comm.is_main_process():
            return {}
        found: dict[Hashable, Any] = {}
        for part, _ in parts:
            found = {**part, **found}
        total: dict[int, Counts] = {}
        missing = 0
        for image_id in self._at:  # in the order of the data set, however many processes there were
            if image_id not in found:
                missing += 1
                continue
            for category, counts in found[image_id][0].items():
                total.setdefault(category, Counts()).add(counts)
        if missing:
            logger.warning("%d of %d images were not given to the model and count nowhere.", missing, len(self._at))
        values, rows = panoptic_quality(total, self.truth.categories)
        entries = [found[image_id][1] for image_id in self._at if image_id in found]
        document = {"annotations": entries, "categories": self.truth.categories}
        metrics = self._publish(values, NAMES, {"panoptic_predictions.json": document})
        images = ends([entry for _, part in parts for entry in part])
        self.outcome = PanopticOutcome(self.dataset, values, rows, images)
        return metrics


@EVALUATORS.register(name="panoptic")
def panoptic(cfg: CfgNode, dataset: CocoDataset, folder: str | Path | None) -> PanopticEvaluator:
    """Segments of things and stuff."""
    return PanopticEvaluator(dataset, folder)
