"""Box proposals that were computed before, of a file in Detectron2's format (Fast R-CNN, arXiv 1504.08083)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..config.paths import expand_path
from ..errors import DataError, WeightsError
from ..weights.download import fetch
from ..weights.formats.numpy_pickle import read_numpy_pickle

if TYPE_CHECKING:
    from .coco_dataset import CocoDataset

# What Detectron2's catalog of files stands for.
DETECTRON2, ADDRESS = "detectron2://", "https://dl.fbaipublicfiles.com/detectron2/"
OLD_NAMES = {"indexes": "ids", "scores": "objectness_logits"}  # Detectron's
XYXY, XYWH = 0, 1  # of Detectron2's BoxMode


@dataclass(frozen=True)
class Proposals:
    """Those of a data set's images, the surest of each first. Tensors, which processes share.

    Attributes:
        first: int64 (n + 1,), the first of each image's.
        boxes: float32 (m, 4) XYXY px.
        logits: float32 (m,).
    """

    first: torch.Tensor
    boxes: torch.Tensor
    logits: torch.Tensor

    def of(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (p, 4) and logits (p,) of the image at this position."""
        start, end = self.first[image : image + 2].tolist()
        return self.boxes[start:end].numpy(), self.logits[start:end].numpy()


def read_proposals(source: str, dataset: CocoDataset) -> Proposals:
    """The proposals of a data set's images, in their order.

    The file is a pickle of a dict: `ids` of images, and for each `boxes` (p, 4) and `objectness_logits` (p,);
    `bbox_mode` 0 (XYXY px, the default) or 1 (XYWH px). Nothing in it is run.

    Args:
        source: a path, a URL, or Detectron2's `detectron2://...`, which is downloaded from where it keeps its files.

    Raises:
        DataError: the file cannot be had or read, or lacks an image.
    """
    try:
        path = _path(source)
        if not path.is_file():
            raise DataError(f"There is no file of proposals {path}: check DATASETS.PROPOSAL_FILES_TRAIN and _TEST.")
        content = read_numpy_pickle(path)
    except WeightsError as error:
        raise DataError(str(error)) from error
    ids, boxes, logits = _lists(path, content)
    mode = content.get("bbox_mode", XYXY)
    if mode not in (XYXY, XYWH):
        raise DataError(f"{path} has bbox_mode {mode!r}: use 0 (XYXY px) or 1 (XYWH px).")
    position = {str(image_id): number for number, image_id in enumerate(ids)}
    all_boxes, all_logits = [], []
    for index in range(len(dataset)):
        image_id = dataset.image(index).id
        at = position.get(str(image_id))
        if at is None:
            raise DataError(
                f"{path} has no proposals for image {image_id!r} of {dataset.json_path}: give the file that was made "
                "for this data set (DATASETS.PROPOSAL_FILES_TRAIN, PROPOSAL_FILES_TEST)."
            )
        order = logits[at].argsort()[::-1]  # as Detectron2 has it, which decides the order of equal ones
        own = boxes[at][order].astype(np.float32)
        if mode == XYWH:
            own[:, 2:] += own[:, :2]
        all_boxes.append(own)
        all_logits.append(logits[at][order].astype(np.float32))
    counts = torch.tensor([0, *map(len, all_boxes)])
    return Proposals(
        first=counts.cumsum(0),
        boxes=torch.from_numpy(np.concatenate([np.zeros((0, 4), np.float32), *all_boxes])),
        logits=torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *all_logits])),
    )


def _path(source: str) -> Path:
    text = str(source)
    if text.startswith(DETECTRON2):
        text = ADDRESS + text.removeprefix(DETECTRON2)
    if text.startswith(("http://", "https://")):
        return fetch(text)
    return Path(expand_path(text, "DATASETS.PROPOSAL_FILES"))


def _lists(path: Path, content: Any) -> tuple[list, list[np.ndarray], list[np.ndarray]]:
    """`ids`, `boxes` and `objectness_logits` of a file, looked through.

    Raises:
        DataError: they are none.
    """
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds no proposals, but a {type(content).__name__}.")
    named = {OLD_NAMES.get(key, key): value for key, value in content.items()}
    found = [named.get(key) for key in ("ids", "boxes", "objectness_logits")]
    if not all(isinstance(value, (list, tuple, np.ndarray)) for value in found) or len({len(x) for x in found}) > 1:
        raise DataError(
            f"{path} holds no proposals: it must have lists ids, boxes and objectness_logits of one length."
        )
    ids, boxes, logits = found
    for image_id, own, scores in zip(ids, boxes, logits):
        fits = isinstance(own, np.ndarray) and isinstance(scores, np.ndarray) and scores.ndim == 1
        if not fits or own.shape != (len(scores), 4) or own.dtype.kind != "f" or scores.dtype.kind != "f":
            raise DataError(f"{path}: image {image_id!r} must have boxes (p, 4) and objectness_logits (p,) of floats.")
        if not np.isfinite(own).all() or not np.isfinite(scores).all():
            raise DataError(f"{path}: image {image_id!r} has proposals that are not finite.")
    return list(ids), list(boxes), list(logits)
