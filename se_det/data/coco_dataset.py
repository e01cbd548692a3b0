"""A COCO data set in memory: tensors and offsets, so that processes share one copy and an item is a few slices.

Tensors are shared by workers without /dev/shm: started by fork they see the pages of their parent, which nothing writes
to (no reference counts, unlike Python objects); started otherwise, torch hands tensors over in shared memory by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from .image_paths import check_files
from .keypoints import KeypointLayout
from .panoptic import PanopticFiles
from .pixel_labels import PixelLabels, check_label_files
from .proposals import Proposals
from .string_array import StringArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageInfo:
    """An image of a data set: its id as in the JSON, its file, and its size px as it is shown (after EXIF rotation)."""

    id: int | str
    path: Path
    height: int
    width: int


@dataclass(frozen=True)
class ImageAnnotations:
    """What is annotated in an image: n annotations in the order of the file.

    Attributes:
        boxes: float32 (n, 4) XYXY px, not clipped.
        classes: int64 (n,), positions in `category_ids`.
        crowd: bool (n,).
        areas: float64 (n,) px^2, of the file, or the box's where the file gives none.
        polygons: float64 (M, 2) xy px, the vertices of all polygons.
        polygon_points: int64 (P,) vertices of each polygon.
        polygon_owner: int64 (P,) its annotation, 0..n-1.
        runs: run lengths of each RLE (see `rle.bitmap`).
        runs_owner: int64, its annotation.
        keypoints: float32 (n, K, 3) x, y px and v, all 0 where an annotation has none; None where not asked for.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    polygons: np.ndarray
    polygon_points: np.ndarray
    polygon_owner: np.ndarray
    runs: list[np.ndarray]
    runs_owner: np.ndarray
    keypoints: np.ndarray | None = None


class CocoDataset:
    """Images with their annotations. `read_coco` makes one.

    Attributes:
        json_path: the annotation file.
        images_folder: what file names are relative to.
        category_ids: the file's category ids, ascending; a class index is a position here.
        category_names: their names.
        keypoints: which keypoints annotations may have; None without.
        keypoint_fault: why there are none, as a sentence.
        pixel_labels: the class of every pixel of each image; None where there are none.
        panoptic: the panoptic truth of the images; likewise.
        evaluators: the names of those for "instances" and "pixels", where they are not coco and sem_seg.
        declared_counts: what the file says of how many images have each class (`image_count` of LVIS's categories), as
            it stands there; None where it says nothing.
    """

    def __init__(
        self,
        *,
        json_path: Path,
        images_folder: Path,
        category_ids: tuple[int, ...],
        category_names: tuple[str, ...],
        image_ids: torch.Tensor | StringArray,
        file_names: StringArray,
        columns: dict[str, torch.Tensor],
        keypoints: KeypointLayout | None = None,
        keypoint_fault: str = "",
        pixel_labels: PixelLabels | None = None,
        panoptic: PanopticFiles | None = None,
        evaluators: Mapping[str, str] | None = None,
        declared_counts: tuple[Any, ...] = (),
    ) -> None:
        """`columns`: as `read_coco` lays them out; `index` is the image of each item, `first` the first annotation of
        each image, `*_range` a first and an after-last position."""
        self.json_path = json_path
        self.images_folder = images_folder
        self.category_ids = category_ids
        self.category_names = category_names
        self._image_ids = image_ids
        self._file_names = file_names
        self._columns = columns
        self.keypoints, self.keypoint_fault = keypoints, keypoint_fault
        self.pixel_labels = pixel_labels
        self.panoptic = panoptic
        self.evaluators = dict(evaluators or {})
        self.declared_counts = declared_counts or (None,) * len(category_ids)
        self._proposals: tuple[Proposals, torch.Tensor] | None = None  # with the place of each image's

    def __len__(self) -> int:
        return len(self._columns["index"])

    def image(self, i: int) -> ImageInfo:
        """The image at position `i`."""
        at = self._at(i)
        height, width = self._columns["sizes"][at].tolist()
        image_id = self._image_ids[at]
        return ImageInfo(
            id=image_id if isinstance(image_id, str) else int(image_id),
            path=(self.images_folder / self._file_names[at]).absolute(),
            height=height,
            width=width,
        )

    def annotations(
        self, i: int, *, crowds: bool = True, masks: bool = True, keypoints: bool = False
    ) -> ImageAnnotations:
        """The annotations of the image at position `i`; without crowds, without segmentations, and with keypoints, when
        so asked."""
        start, end = self._columns["first"].numpy()[self._at(i) :][:2]
        rows = np.arange(start, end)
        if not crowds:
            rows = rows[~self._column("crowd")[rows]]
        polygons = self._polygons(rows if masks else rows[:0])
        runs_range = self._column("runs_range")[rows if masks else rows[:0]]
        with_runs = np.flatnonzero(runs_range[:, 0] < runs_range[:, 1])
        runs = self._column("runs").view(np.uint32)
        return ImageAnnotations(
            boxes=self._column("boxes")[rows],
            classes=self._column("classes")[rows],
            crowd=self._column("crowd")[rows],
            areas=self._column("areas")[rows],
            polygons=polygons[0],
            polygon_points=polygons[1],
            polygon_owner=polygons[2],
            runs=[runs[first:last] for first, last in runs_range[with_runs]],
            runs_owner=with_runs,
            keypoints=self._keypoints(rows) if keypoints else None,
        )

    def check_keypoints(self) -> KeypointLayout:
        """Which keypoints there are.

        Raises:
            DataError: there are none, or they cannot be used.
        """
        if self.keypoints is None:
            raise DataError(
                f"{self.keypoint_fault} Keypoints are asked for (MODEL.KEYPOINT_ON): correct the file, or set it False."
            )
        return self.keypoints

    def labelled_keypoints(self) -> torch.Tensor:
        """int64 (len(self),): how many keypoints of each image are labelled, crowds' included."""
        row = self._columns["keypoint_row"]
        labelled = (self._columns["keypoints"][..., 2] > 0).sum(1)
        counts = torch.nn.functional.pad(labelled, (1, 0))[row + 1]  # -1 is the first: none
        return self._per_image(counts)

    def drop_few_keypoints(self, least: int) -> CocoDataset:
        """The images with so many labelled keypoints at least; how many others there are is logged."""
        kept = self.subset(torch.nonzero(self.labelled_keypoints() >= least).flatten())
        if len(kept) < len(self):
            logger.info(
                "%s: %d of %d images have fewer than %d labelled keypoints and are left out (MODEL.ROI_KEYPOINT_HEAD."
                "MIN_KEYPOINTS_PER_IMAGE).", self.json_path, len(self) - len(kept), len(self), least,
            )  # fmt: skip
        return kept

    @property
    def sizes(self) -> torch.Tensor:
        """int64 (n, 2): height and width px of each image."""
        return self._columns["sizes"][self._columns["index"]]

    @property
    def file_names(self) -> list[str]:
        """The name of each image's file, below `images_folder`."""
        return [self._file_names[at] for at in self._columns["index"].tolist()]

    def drop_empty(self) -> CocoDataset:
        """The images with an annotation that is not a crowd; how many others there are is logged. All of a data set
        without instances."""
        if not self.category_ids:
            return self
        counts = self._not_crowd(torch.ones(len(self._columns["crowd"]), dtype=torch.bool))
        kept = self.subset(torch.nonzero(counts > 0).flatten())
        if len(kept) < len(self):
            logger.info(
                "%s: %d of %d images have no annotations but crowds and are left out (DATALOADER."
                "FILTER_EMPTY_ANNOTATIONS).", self.json_path, len(self) - len(kept), len(self),
            )  # fmt: skip
        return kept

    def subset(self, positions: torch.Tensor | Sequence[int]) -> CocoDataset:
        """The images at these positions, in this order; everything else is shared with this data set."""
        index = self._columns["index"][torch.as_tensor(positions, dtype=torch.int64)]
        result = CocoDataset(
            json_path=self.json_path,
            images_folder=self.images_folder,
            category_ids=self.category_ids,
            category_names=self.category_names,
            image_ids=self._image_ids,
            file_names=self._file_names,
            columns={**self._columns, "index": index},
            keypoints=self.keypoints,
            keypoint_fault=self.keypoint_fault,
            pixel_labels=self.pixel_labels,
            panoptic=self.panoptic,
            evaluators=self.evaluators,
            declared_counts=self.declared_counts,
        )
        result._proposals = self._proposals
        return result

    def evaluated_by(self, **evaluators: str) -> CocoDataset:
        """The same with other `evaluators`."""
        result = self.subset(torch.arange(len(self)))
        result.evaluators = evaluators
        return result

    def with_labels(self, pixel_labels: PixelLabels | None, panoptic: PanopticFiles | None = None) -> CocoDataset:
        """The same with classes of pixels and a panoptic truth."""
        result = self.subset(torch.arange(len(self)))
        result.pixel_labels, result.panoptic = pixel_labels, panoptic
        return result

    def with_proposals(self, proposals: Proposals) -> CocoDataset:
        """The same with proposals of its images, in their order."""
        index = self._columns["index"]
        place = torch.zeros(int(index.max()) + 1, dtype=torch.int64)
        place[index] = torch.arange(len(index))
        result = self.subset(torch.arange(len(self)))
        result._proposals = proposals, place
        return result

    def proposals(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (p, 4) XYXY px and logits (p,) of the image at position `i`."""
        proposals, place = self._proposals
        return proposals.of(int(place[self._at(i)]))

    def labels(self, i: int) -> np.ndarray:
        """uint8 (height, width): the class of each pixel of the image at position `i`.

        Raises:
            DataError: see `PixelLabels.read`.
        """
        info = self.image(i)
        return self.pixel_labels.read(self._file_names[self._at(i)], info.height, info.width)

    def has_annotations(self) -> bool:
        """Whether any image has an annotation that is not a crowd: without one there is no AP."""
        return self.num_annotations() > 0

    def num_annotations(self) -> int:
        """How many annotations there are, crowds not counted."""
        return int(self._not_crowd(torch.ones(len(self._columns["crowd"]), dtype=torch.bool)).sum())

    def max_objects_per_image(self, *, of_class: bool = False) -> int:
        """The most annotations that an image has, or has of one class; crowds not counted."""
        classes = len(self.category_ids)
        owner = torch.repeat_interleave(torch.diff(self._columns["first"]))
        kept = ~self._columns["crowd"] & torch.isin(owner, self._columns["index"])
        cells = owner[kept] * classes + (self._columns["classes"][kept] if of_class else 0)
        return int(torch.unique(cells, return_counts=True)[1].max()) if len(cells) else 0

    def classes_of_images(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 (p,), (p,): every pair of an image, by its position, and a class that it has, crowds' included."""
        first, index = self._column("first"), self._column("index")
        counts = first[index + 1] - first[index]
        image = np.repeat(np.arange(len(index)), counts)
        rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first[index], counts)
        classes = len(self.category_ids)
        return np.divmod(np.unique(image * classes + self._column("classes")[rows]), classes)

    def num_annotations_without_mask(self) -> int:
        """How many annotations, crowds not counted, have no segmentation."""
        lacking = torch.ones(len(self._columns["crowd"]), dtype=torch.bool)
        for key in ("polygon_range", "runs_range"):
            lacking &= self._columns[key][:, 0] == self._columns[key][:, 1]
        return int(self._not_crowd(lacking).sum())

    def num_rle_annotations(self) -> int:
        """How many annotations, crowds not counted, have a run-length encoded mask."""
        runs = self._columns["runs_range"]
        return int(self._not_crowd(runs[:, 0] < runs[:, 1]).sum())

    def check_files_exist(self) -> None:
        """Refuse a data set whose image files are not all there, without opening any.

        Raises:
            DataError: naming the first files missing and their number.
        """
        check_files(self.json_path, self.images_folder, self.file_names)
        if self.pixel_labels is not None:
            check_label_files(self.pixel_labels, self.file_names)

    def _not_crowd(self, which: torch.Tensor) -> torch.Tensor:
        """int64 (len(self),): how many annotations of each image are in `which` and no crowds."""
        return self._per_image(which & ~self._columns["crowd"])

    def _per_image(self, counts: torch.Tensor) -> torch.Tensor:
        """int64 (len(self),): the sums over each image's annotations."""
        sums = torch.nn.functional.pad(torch.cumsum(counts, 0), (1, 0))
        first = self._columns["first"]
        return (sums[first[1:]] - sums[first[:-1]])[self._columns["index"]]

    def _keypoints(self, rows: np.ndarray) -> np.ndarray:
        row = self._column("keypoint_row")[rows]
        result = np.zeros((len(rows), *self._columns["keypoints"].shape[1:]), np.float32)
        result[row >= 0] = self._column("keypoints")[row[row >= 0]]
        return result

    def _polygons(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices, their number per polygon, and its row's position in `rows`. A row's polygons lie together."""
        start, vertices = self._column("polygon_start"), self._column("vertices")
        ranges = self._column("polygon_range")[rows]
        with_polygons = np.flatnonzero(ranges[:, 0] < ranges[:, 1])
        if len(with_polygons) == 0:
            return np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64)
        pairs = ranges[with_polygons].tolist()
        xy = np.concatenate([vertices[start[first] : start[last]] for first, last in pairs])
        points = np.concatenate([np.diff(start[first : last + 1]) for first, last in pairs])
        return xy, points, np.repeat(with_polygons, [last - first for first, last in pairs])

    def _at(self, i: int) -> int:
        return int(self._columns["index"][i])

    def _column(self, key: str) -> np.ndarray:
        return self._columns[key].numpy()


def check_size(dataset: CocoDataset, info: ImageInfo, height: int, width: int) -> None:
    """Refuse an image whose file turned out to be of another size than the JSON gives.

    Raises:
        DataError: naming both sizes.
    """
    if (height, width) == (info.height, info.width):
        return
    turned = (
        " The two are exchanged: the file has an EXIF orientation, which the JSON must take into account."
        if (width, height) == (info.height, info.width)
        else " (The file's size is meant after its EXIF rotation.)"
    )
    raise DataError(
        f"The image {info.path} is {width} x {height} (width x height), but {dataset.json_path} says "
        f"{info.width} x {info.height} for image {info.id!r}.{turned} Correct the JSON, or replace the file."
    )
