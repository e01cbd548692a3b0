"""What a detector found in one image: detections in a row, with named columns."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from ..config.paths import expand_path
from ..data.class_names import find_classes
from ..data.images import read_image
from ..data.pixels import check_pixels
from ..errors import ConfigError
from .coco_results import to_coco_results
from .drawing import draw_detections

DEFAULT_THRESHOLD = 0.5  # of a class for which no score of its own was found


def score_limits(thresholds: Sequence[float | None]) -> np.ndarray:
    """float64, the score per class from which it is shown: its own, else `DEFAULT_THRESHOLD`."""
    return np.array([DEFAULT_THRESHOLD if t is None else t for t in thresholds], np.float64)


class Result(Mapping):
    """The n detections in an image, best first.

    Its length is n, and a slice, an index, a list of them or n truth values give a `Result` of those detections:
    `result[:10]`, `result[result.scores > 0.5]`. By name it is a mapping of columns that cannot be changed:
    `result["boxes"]`, `dict(result)`, `for name in result`, `"masks" in result`. So `len(result)` is not the number of
    columns (`len(result.keys())` is), and a result without detections is false.

    Attributes:
        class_names: a name per class index, as `Predictor.class_names`.
        category_ids: the training data's category id per class index.
        thresholds: the score of best F1 per class index, see `above_thresholds`; None where there is none.
        image_size: (height, width) px; None where it is not known.
        sem_seg: uint8 (height, width), the class of each pixel; None from a model without.
        panoptic_seg: int32 (height, width), the segment of each pixel, and the segments' infos (see
            `detection.architectures.panoptic_fpn.combine_segments`); None from a model without.
        pixel_class_names: a name per class of pixels.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        *,
        class_names: Sequence[str],
        category_ids: Sequence[int] | None = None,
        thresholds: Sequence[float | None] | None = None,
        skeleton: Sequence[tuple[int, int]] = (),
        image_size: tuple[int, int] | None = None,
        sem_seg: np.ndarray | None = None,
        panoptic_seg: tuple[np.ndarray, list[dict[str, Any]]] | None = None,
        pixel_class_names: Sequence[str] = (),
    ) -> None:
        """
        Args:
            columns: `boxes` float32 (n, 4) XYXY px, `scores` (n,), `classes` int64 (n,), and where there are masks
                `masks` bool (n, height, width), where there are keypoints `keypoints` (n, K, 3); others are kept.
            category_ids: None numbers the classes from 0.
            thresholds: None knows of none.
            skeleton: pairs of keypoints that `draw` joins.
            image_size: None takes that of the masks, where there are any.
            sem_seg, panoptic_seg, pixel_class_names: see the attributes.
        """
        self._columns = dict(columns)
        self.class_names = list(class_names)
        self.skeleton = tuple(skeleton)
        self.category_ids = list(range(len(self.class_names)) if category_ids is None else category_ids)
        self.sem_seg, self.panoptic_seg, self.pixel_class_names = sem_seg, panoptic_seg, list(pixel_class_names)
        self.thresholds = list([None] * len(self.class_names) if thresholds is None else thresholds)

        masks = self._columns.get("masks")
        self.image_size = tuple(masks.shape[1:]) if image_size is None and masks is not None else image_size

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) XYXY px of the image."""
        return self._columns["boxes"]

    @property
    def scores(self) -> np.ndarray:
        """(n,), between 0 and 1."""
        return self._columns["scores"]

    @property
    def classes(self) -> np.ndarray:
        """(n,) class indices."""
        return self._columns["classes"]

    @property
    def masks(self) -> np.ndarray | None:
        """bool (n, height, width) of the image; None from a detector without masks."""
        return self._columns.get("masks")

    @property
    def keypoints(self) -> np.ndarray | None:
        """float32 (n, K, 3): x, y px of the image and score; None from a detector without keypoints."""
        return self._columns.get("keypoints")

    @property
    def names(self) -> list[str]:
        """The class's name of each detection."""
        return [self.class_names[index] for index in self.classes.tolist()]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._columns

    # A mapping's own views would take the number of columns for `len(result)`.
    def keys(self) -> KeysView[str]:
        """The names of the columns."""
        return self._columns.keys()

    def values(self) -> ValuesView[np.ndarray]:
        """The columns."""
        return self._columns.values()

    def items(self) -> ItemsView[str, np.ndarray]:
        """The columns with their names."""
        return self._columns.items()

    @overload
    def __getitem__(self, key: str) -> np.ndarray: ...

    @overload
    def __getitem__(self, key: int | slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Result: ...

    def __getitem__(self, key: Any) -> np.ndarray | Result:
        """A column by its name, or some of the detections, in the order asked.

        Raises:
            KeyError: there is no such column.
            IndexError: no such detection; truth values that are not as many as detections; what is no index at all.
        """
        if isinstance(key, str):
            return self._columns[key]
        if not isinstance(key, slice):
            key = np.atleast_1d(np.asarray(key))
            if key.ndim != 1:
                raise IndexError(f"Detections lie in one row: {key.ndim} axes cannot choose among them.")
            if not key.size and key.dtype != bool:
                key = key.astype(np.int64)  # an empty list
        return Result(
            {name: column[key] for name, column in self._columns.items()},
            class_names=self.class_names,
            category_ids=self.category_ids,
            thresholds=self.thresholds,
            skeleton=self.skeleton,
            image_size=self.image_size,
            sem_seg=self.sem_seg,
            panoptic_seg=self.panoptic_seg,
            pixel_class_names=self.pixel_class_names,
        )

    def __repr__(self) -> str:
        counts = np.bincount(self.classes, minlength=len(self.class_names)).tolist()
        found = ", ".join(f"{count} {name}" for name, count in zip(self.class_names, counts) if count)
        return f"<Result: {len(self)} detections{f' ({found})' if found else ''}; {', '.join(self)}>"

    def of(self, *classes: str | int) -> Result:
        """The detections of these classes, by name or category id.

        Raises:
            ConfigError: there is no such class.
        """
        return self[np.isin(self.classes, find_classes(classes, self.class_names, self.category_ids))]

    def above_thresholds(self) -> Result:
        """The detections that score at least their class's threshold: of the best F1 on the validation data, which the
        checkpoint keeps; 0.5 for a class, or a checkpoint, without one. `se-det predict` draws these."""
        return self[self.scores >= score_limits(self.thresholds).astype(self.scores.dtype)[self.classes]]

    def to_coco(self, image_id: Any) -> list[dict[str, Any]]:
        """COCO results: `image_id`, `category_id`, `bbox` XYWH px, `score`, `segmentation` (compressed RLE) where there
        are masks and `keypoints` where there are those, ready for JSON, as `se-det predict` writes them."""
        instances = {
            f"pred_{name}": torch.from_numpy(self[name])
            for name in ("boxes", "classes", "masks", "keypoints")
            if name in self
        }
        instances["scores"] = torch.from_numpy(self.scores)
        results, _ = to_coco_results(
            instances, image_id=image_id, category_ids=self.category_ids, masks=self.masks is not None,
            keypoints=self.keypoints is not None,
        )  # fmt: skip
        return results

    def to_supervision(self) -> Any:
        """`supervision.Detections` of the same: `xyxy`, `mask`, `confidence`, `class_id` (class indices) and
        `data["class_name"]`.

        Raises:
            ConfigError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ConfigError(
                f"to_supervision() needs the package supervision, which cannot be imported ({error}): pip install "
                "supervision."
            ) from error
        return Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.classes,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def to_fiftyone(self, size: tuple[int, int] | None = None) -> Any:
        """`fiftyone.Detections` of the same: `label`, `confidence`, `bounding_box` (left, top, width, height as shares
        of the image's) and, where there are masks, the part within the box as `mask`.

        Args:
            size: (height, width) px of the image; None takes `image_size`.

        Raises:
            ConfigError: FiftyOne is not installed, or the image's size is not known.
        """
        try:
            from fiftyone import Detection, Detections
        except ImportError as error:
            raise ConfigError(
                f"to_fiftyone() needs the package fiftyone, which cannot be imported ({error}): pip install fiftyone."
            ) from error
        size = size or self.image_size
        if size is None:
            raise ConfigError("to_fiftyone() needs the size of the image: give size=(height, width).")
        height, width = size
        found = []
        for index, (name, box, score) in enumerate(zip(self.names, self.boxes.tolist(), self.scores.tolist())):
            x0, y0, x1, y1 = box
            mask = None
            if self.masks is not None:
                left, top = min(round(x0), width - 1), min(round(y0), height - 1)
                mask = self.masks[index, top : max(round(y1), top + 1), left : max(round(x1), left + 1)]
            place = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
            found.append(Detection(label=name, bounding_box=place, confidence=score, mask=mask))
        return Detections(detections=found)

    def draw(self, image: str | Path | np.ndarray) -> np.ndarray:
        """The image with all of these detections drawn on it (see `draw_detections`); choose before, as by
        `result.above_thresholds().draw(image)`.

        Args:
            image: what was detected in: a file, or pixels uint8 (height, width, 3), BGR, which are not changed.

        Returns:
            uint8 (height, width, 3), BGR.

        Raises:
            DataError: it is no image.
            ValueError: it is of another size than the masks.
        """
        if isinstance(image, (str, Path)):
            image = read_image(expand_path(image, "The image"))
        check_pixels(image, "BGR")
        instances = {"pred_boxes": self.boxes, "pred_classes": self.classes, "scores": self.scores}
        if self.masks is not None:
            instances["pred_masks"] = self.masks
        if self.keypoints is not None:
            instances["pred_keypoints"] = self.keypoints
        return draw_detections(image, instances, self.class_names, score_threshold=-np.inf, skeleton=self.skeleton)
