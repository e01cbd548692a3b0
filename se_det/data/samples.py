"""From an index to a sample: the image is read and augmented, and its annotations with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from ..errors import ConfigError, DataError
from .augmentations import Augmentation, Masks, Sample
from .augmentations.lazy_image import LazyImage
from .augmentations.protocol import EMPTY
from .coco_dataset import CocoDataset, ImageInfo, check_size
from .images import read_image
from .regions import OpenImages
from .rle import bitmap
from .samplers import Item
from .tile_samples import open_checked
from .tile_truth import TrainWindows, window_sample
from .transforms import empty_tensor, resize_image, short_side_size, to_tensor

PARTNER = 3  # among the seeds of a sample's partners; 2 is in `skipping`


class PartnerError(DataError):
    """An image that another was to be augmented with cannot be used: the one at `index`."""

    def __init__(self, sentence: str, index: int) -> None:
        super().__init__(sentence)
        self.index = index


class TrainDataset:
    """Samples with ground truth from one or several data sets; map-style, the key is (number, index).

    The random numbers of a sample come from (seed, its number in the run), and so do not depend on who loads it.

    Args:
        augmentations: done one after another.
        masks, keypoints: whether samples have them.
        ignore: read the class of each pixel too, and fill with this where there is none; None does not.
        windows: the index is one of these; None: it is an image.
        most_proposals: give each sample so many of its image's proposals; None gives none.

    Raises:
        ConfigError: an augmentation that classes of pixels, or proposals, cannot go through.
    """

    def __init__(
        self, datasets: list[CocoDataset], *, augmentations: Sequence[Augmentation], seed: int, format: str,
        masks: bool, keypoints: bool = False, ignore: int | None = None, windows: TrainWindows | None = None,
        most_proposals: int | None = None,
    ) -> None:  # fmt: skip
        for augmentation in augmentations if most_proposals is not None else ():
            if augmentation.partners:
                raise ConfigError(
                    f"INPUT.AUGMENTATIONS has {type(augmentation).__name__}, which mixes images, and the proposals of "
                    "files are of one each: leave it out."
                )
        self.most_proposals = most_proposals
        for augmentation in augmentations if ignore is not None else ():
            if not getattr(augmentation, "labels_pixels", True):
                raise ConfigError(
                    f"INPUT.AUGMENTATIONS has {type(augmentation).__name__}, which the classes of pixels cannot go "
                    "through: leave it out."
                )
        self.datasets, self.ignore = datasets, ignore
        self.windows, self._open = windows, OpenImages(format)
        self.augmentations, self.seed, self.format, self.masks = tuple(augmentations), seed, format, masks
        self.flip_pairs = np.array(datasets[0].check_keypoints().flip) if keypoints else None
        self._ends = np.cumsum([len(dataset) for dataset in datasets])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.windows is None else len(self.windows)

    def __getitem__(self, item: Item) -> dict[str, Any]:
        """A sample, ground truth as NumPy arrays (see `worker_loader`).

        Raises:
            DataError: the image cannot be read or is not of the size that the JSON gives.
            PartnerError: one that it is augmented with cannot or is not.
        """
        number, index = item
        augmented = self._augmented(index, len(self.augmentations), (self.seed, number))
        dataset, at = self._locate(index)
        where = {} if self.windows is None else {"window": tuple(self.windows.corners[index].tolist())}
        return {
            **_image_record(dataset.image(at)),
            **where,
            "image": _image_tensor(augmented.lazy_image),
            "instances": _instances(augmented),
            **({} if augmented.sem_seg is None else {"sem_seg": _stacked([augmented.sem_seg], *augmented.size)[0]}),
            **self._proposals(dataset, at, augmented),
        }

    def _proposals(self, dataset: CocoDataset, at: int, sample: Sample) -> dict[str, Any]:
        if self.most_proposals is None:
            return {}
        _, logits = dataset.proposals(at)
        return {"proposals": _best_proposals(sample.proposals, logits, sample.size, self.most_proposals)}

    def _augmented(self, index: int, count: int, seeds: tuple[int, ...], *, partner: bool = False) -> Sample:
        """The image at `index` after the first `count` augmentations.

        The partners of an augmentation are found and augmented with random numbers of their own, whose seeds begin
        with this sample's: what they draw changes nothing of what this one draws. A partner's image is not read before
        something of it is asked for.
        """
        random = np.random.default_rng(seeds)
        sample = self._read(index, later=partner)
        for place, augmentation in enumerate(self.augmentations[:count]):
            # The index is among the seeds, as an image that takes a bad one's place should get other partners.
            own = (*seeds, PARTNER, index, place)
            partners = _Partners(augmentation.partners, partial(self._partner, place, own))
            sample = augmentation(sample, random, partners)
        return sample

    def _partner(self, place: int, seeds: tuple[int, ...], partner: int) -> Sample:
        own = (*seeds, partner)
        # Of windows one that has objects, as most images have.
        among = len(self) if self.windows is None else self.windows.full or len(self)
        other = int(np.random.default_rng((*own, PARTNER)).integers(among))
        try:
            return self._augmented(other, place, own, partner=True)
        except PartnerError:
            raise
        except DataError as error:
            raise PartnerError(str(error), other) from error

    def _read(self, index: int, *, later: bool = False) -> Sample:
        dataset, at = self._locate(index)
        info = dataset.image(at)
        if self.windows is not None:
            return self._read_window(dataset, at, info, index)
        if later:
            read = partial(_read_partner, dataset, info, self.format, index)
            image = LazyImage((info.height, info.width), read)
        else:
            image = _read(dataset, info, self.format)
        found = dataset.annotations(at, crowds=False, masks=self.masks, keypoints=self.flip_pairs is not None)
        masks = None
        if self.masks:
            masks = Masks(
                polygons=found.polygons,
                polygon_points=found.polygon_points,
                polygon_owner=found.polygon_owner,
                bitmaps=_Bitmaps(found.runs, info.height, info.width),
                bitmap_owner=found.runs_owner,
            )
        proposals = {}
        if self.most_proposals is not None:
            proposals["proposals"] = dataset.proposals(at)[0].astype(np.float64)
        labels = {} if self.ignore is None else {"sem_seg": _labels(dataset, at, self.ignore), "ignore": self.ignore}
        return Sample(
            image=image,
            boxes=found.boxes.astype(np.float64),
            classes=found.classes,
            masks=masks,
            keypoints=None if found.keypoints is None else found.keypoints.astype(np.float64),
            flip_pairs=self.flip_pairs,
            **labels,
            **proposals,
        )

    def _read_window(self, dataset: CocoDataset, at: int, info: ImageInfo, index: int) -> Sample:
        window = self.windows.corners[index]
        return window_sample(
            dataset.annotations(at, masks=self.masks),
            open_checked(self._open, dataset, info).read(window),
            window,
            (info.height, info.width),
            min_visible=self.windows.min_visible,
            masks=self.masks,
        )

    def image_of(self, index: int) -> int:
        """The image that an index stands for, through those of all data sets."""
        return index if self.windows is None else int(self.windows.image[index])

    def _locate(self, index: int) -> tuple[CocoDataset, int]:
        """The data set that an index is of, and the position in it."""
        index = self.image_of(index)
        which = int(np.searchsorted(self._ends, index, side="right"))
        dataset = self.datasets[which]
        return dataset, index - (int(self._ends[which]) - len(dataset))


class _Partners(Sequence[Sample]):
    """Other samples, each read and augmented when it is first asked for: not every augmentation happens each time."""

    def __init__(self, count: int, load: Callable[[int], Sample]) -> None:
        self._loaded: list[Sample | None] = [None] * count
        self._load = load

    def __len__(self) -> int:
        return len(self._loaded)

    def __getitem__(self, at: int) -> Sample:
        if self._loaded[at] is None:
            self._loaded[at] = self._load(at)
        return self._loaded[at]


class _Bitmaps:
    """Masks that are decoded when they are asked for."""

    def __init__(self, runs: Sequence[np.ndarray], height: int, width: int) -> None:
        self._runs, self._size = runs, (height, width)

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, at: int) -> np.ndarray:
        return bitmap(self._runs[at], *self._size)


class TestDataset:
    """Samples without ground truth, resized by their short side; map-style, the key is an index.

    Args:
        most_proposals: see `TrainDataset`.
    """

    __test__ = False  # not a test, whatever its name makes pytest think

    def __init__(
        self, dataset: CocoDataset, *, short_side: int, max_size: int, format: str, method: str,
        most_proposals: int | None = None,
    ) -> None:  # fmt: skip
        self.dataset, self.most_proposals = dataset, most_proposals
        self.short_side, self.max_size, self.format, self.method = short_side, max_size, format, method

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A sample.

        Raises:
            DataError: the image cannot be read or is not of the size that the JSON gives.
        """
        info = self.dataset.image(index)
        pixels = _read(self.dataset, info, self.format)
        size = short_side_size(info.height, info.width, self.short_side, self.max_size)
        pixels = resize_image(pixels, *size, method=self.method)
        found = {**_image_record(info), "image": to_tensor(pixels, shared=get_worker_info() is not None)}
        if self.most_proposals is not None:
            boxes, logits = self.dataset.proposals(index)
            scale = np.tile([size[1] / info.width, size[0] / info.height], 2)
            found["proposals"] = _best_proposals(boxes * scale, logits, size, self.most_proposals)
        return found


def _image_record(info: ImageInfo) -> dict[str, Any]:
    return {"height": info.height, "width": info.width, "image_id": info.id, "file_name": str(info.path)}


def _read(dataset: CocoDataset, info: ImageInfo, format: str) -> np.ndarray:
    pixels = read_image(info.path, format)
    check_size(dataset, info, *pixels.shape[:2])
    return pixels


def _read_partner(dataset: CocoDataset, info: ImageInfo, format: str, index: int) -> np.ndarray:
    try:
        return _read(dataset, info, format)
    except DataError as error:
        raise PartnerError(str(error), index) from error


def _image_tensor(image: LazyImage) -> torch.Tensor:
    """uint8 (3, H, W). In a worker it is in memory that is handed over as it is, where it would else be copied."""
    tensor = empty_tensor(3, *image.size, shared=get_worker_info() is not None)
    image.planes(tensor.numpy())
    return tensor


def _best_proposals(boxes: np.ndarray, logits: np.ndarray, size: tuple[int, int], most: int) -> dict[str, np.ndarray]:
    """The first `most` of boxes (p, 4), best first, that have a part in an image of `size`, clipped to it."""
    height, width = size
    boxes = np.clip(boxes, 0.0, np.array([width, height, width, height], np.float64)).astype(np.float32)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1).nonzero()[0][:most]
    return {"proposal_boxes": boxes[kept], "objectness_logits": logits[kept]}


def _labels(dataset: CocoDataset, at: int, ignore: int) -> np.ndarray:
    """The class of each pixel, with `ignore` for those of none."""
    labels, own = dataset.labels(at), dataset.pixel_labels.ignore
    return labels if own == ignore else np.where(labels == own, np.uint8(ignore), labels)


def _instances(sample: Sample) -> dict[str, Any]:
    """The ground truth of a sample, clipped to the image; what is then empty, or has no mask, is left out."""
    height, width = sample.size
    boxes = sample.boxes
    if sample.cut and sample.masks is not None:
        masked = sample.masks.owned(len(boxes))[:, None]
        boxes = np.where(masked, sample.masks.extents(len(boxes)), boxes)
    boxes = np.clip(boxes, 0.0, np.array([width, height, width, height], np.float64)).astype(np.float32)
    keep = ((boxes[:, 2:] - boxes[:, :2]) > EMPTY).all(axis=1)
    if sample.masks is not None and not sample.cut:  # else its extent is empty
        # As in Detectron2 an instance whose mask has vanished, here by resizing, is none; one that never had a mask is.
        keep &= ~sample.masks.vanished(len(keep))
    instances: dict[str, Any] = {"gt_boxes": boxes[keep], "gt_classes": sample.classes[keep]}
    if sample.keypoints is not None:
        keypoints = sample.keypoints[keep]
        inside = ((keypoints[..., :2] >= 0) & (keypoints[..., :2] <= [width, height])).all(axis=2)
        labelled = inside & (keypoints[..., 2] > 0)
        instances["gt_keypoints"] = np.where(labelled[..., None], keypoints, 0).astype(np.float32)
    if sample.masks is not None:
        masks = sample.masks if keep.all() else sample.masks.select(keep)
        instances["gt_masks"] = {
            "polygons": masks.polygons,
            "polygon_points": masks.polygon_points,
            "polygon_owner": masks.polygon_owner,
            "bitmaps": _stacked(masks.bitmaps, height, width),
            "bitmap_owner": masks.bitmap_owner,
        }
    return instances


def _stacked(bitmaps: Sequence[np.ndarray], height: int, width: int) -> np.ndarray | torch.Tensor:
    """uint8 (b, height, width). In a worker they are put into memory that is handed over as it is: a megabyte each."""
    if not len(bitmaps) or get_worker_info() is None:
        return np.stack(bitmaps) if len(bitmaps) else np.zeros((0, height, width), np.uint8)
    result = empty_tensor(len(bitmaps), height, width, shared=True)
    np.stack(bitmaps, out=result.numpy())
    return result
