"""Detection in an image of any size: window by window, and what was found put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from tqdm import tqdm

from ..background import prefetch
from ..data.regions import DecodedRegions, Regions, mean_of_squares, open_regions
from ..data.tile_samples import WindowSampler
from ..data.tiles import tiling
from ..data.transforms import channelwise
from ..errors import ConfigError, DataError
from .crop_masks import CropMask, crop_masks_of, paste_crop_masks
from .tile_merging import TileDetections, TileMerger

if TYPE_CHECKING:
    from .predictor import Predictor

MERGED = {"pred_boxes", "scores", "pred_classes", "pred_masks", "box_masks", "image_size"}
SHORT = 16  # windows, whose number is not counted aloud
OVERVIEW = 4096  # px of the long side: larger images are drawn smaller


def build_window_sampler(cfg: CfgNode) -> WindowSampler | None:
    """What TEST.TILE says of an image's windows; None where images are looked at as a whole."""
    tiles = tiling(cfg.TEST.TILE)
    if tiles is None:
        return None
    return WindowSampler(
        tiles,
        whole_image=cfg.TEST.TILE.WHOLE_IMAGE,
        short_side=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        method=cfg.INPUT.RESIZE,
    )


class TiledInstances:
    """What a detector finds in the windows of one image, collected window by window.

    Args:
        cfg: whose TEST.TILE says how detections are merged.
        windows: int64 (w, 4) XYXY px, of `WindowSampler.windows`.
        size: (height, width) px of the image.
    """

    def __init__(self, cfg: CfgNode, windows: np.ndarray, size: tuple[int, int]) -> None:
        self._windows, self._size = windows, size
        tile = cfg.TEST.TILE
        self._merger = TileMerger(
            windows,
            whole=tile.WHOLE_IMAGE and len(windows) > 1,
            measure=tile.MERGE,
            threshold=tile.THRESHOLD,
        )
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray, list[CropMask] | None]] = []

    @property
    def complete(self) -> bool:
        """Whether every window's were given."""
        return len(self._found) == len(self._windows)

    def add(self, instances: Mapping[str, Any]) -> None:
        """The detections of the next window, in its own pixels; those that are not finite are left out.

        Raises:
            ConfigError: they have columns that cannot be put together.
        """
        unknown = instances.keys() - MERGED
        if unknown:
            raise ConfigError(
                f"The detector finds {', '.join(sorted(unknown))}, which are not put together from windows: set "
                "TEST.TILE.SIZE 0."
            )
        x, y = self._windows[len(self._found), :2].tolist()
        boxes, scores, classes = (instances[key].detach().cpu() for key in ("pred_boxes", "scores", "pred_classes"))
        boxes, scores = boxes.double().numpy(), scores.float().numpy()
        at = np.flatnonzero(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
        masks = crop_masks_of(instances, at)
        moved = None if masks is None else [mask.moved(x, y) for mask in masks]
        self._found.append((boxes[at] + [x, y, x, y], scores[at], classes.numpy()[at], moved))

    def merged(self) -> dict[str, Any]:
        """The image's detections, best first: `pred_boxes` float32 (m, 4) XYXY px, `scores` (m,), `pred_classes` (m,);
        with a mask head `crop_masks`, a list, and `image_size` (height, width)."""
        boxes, scores, classes, masks = zip(*self._found)
        found = self._merger(
            TileDetections(
                boxes=np.concatenate(boxes),
                scores=np.concatenate(scores),
                classes=np.concatenate(classes),
                window=np.repeat(np.arange(len(boxes)), [len(one) for one in scores]),
                masks=None if masks[0] is None else [mask for part in masks for mask in part],
            )
        )
        result: dict[str, Any] = {
            "pred_boxes": torch.from_numpy(found.boxes.astype(np.float32)),
            "scores": torch.from_numpy(found.scores),
            "pred_classes": torch.from_numpy(found.classes),
        }
        if found.masks is not None:
            result["crop_masks"], result["image_size"] = list(found.masks), self._size
        return result


@dataclass(frozen=True)
class TiledImage:
    """What was found in an image, and a picture of it.

    Attributes:
        instances: see `TiledInstances.merged`.
        size: (height, width) px of the image.
        overview: uint8 (h, w, 3), BGR: the image, `factor` times smaller; None where none was asked for.
    """

    instances: dict[str, Any]
    size: tuple[int, int]
    overview: np.ndarray | None
    factor: int

    def in_overview(self, instances: Mapping[str, Any]) -> dict[str, Any]:
        """Instances of the image, in the pixels of the picture."""
        if self.factor == 1:
            return dict(instances)
        result = {**instances, "pred_boxes": instances["pred_boxes"] / self.factor}
        if "crop_masks" in instances:
            result["crop_masks"] = [mask.shrunk(self.factor) for mask in instances["crop_masks"]]
        return result


def detect_tiled(predictor: Predictor, image: str | Path | np.ndarray, *, overview: bool = False) -> TiledImage:
    """Detect in one image by TEST.TILE of the predictor's config. Of a file that can be read in parts a few windows are
    in memory at a time.

    Args:
        image: a file, or pixels uint8 (height, width, 3), BGR.
        overview: whether to make the picture.

    Raises:
        DataError: the image cannot be read.
    """
    cfg, sampler = predictor.cfg, predictor.window_sampler
    if isinstance(image, np.ndarray):
        regions: Regions = DecodedRegions(image[:, :, ::-1] if predictor.reverse_channels else image)
    else:
        regions = open_regions(image, cfg.INPUT.FORMAT)
    try:
        size = regions.height, regions.width
        windows = sampler.windows(*size)
        factor = -(-max(size) // OVERVIEW)
        picture = _Overview(size, factor) if overview else None

        def samples() -> Iterator[dict[str, Any]]:
            # Quiet where nobody watches, and where there is nothing to wait for.
            for window in tqdm(windows, unit="window", leave=False, disable=None if len(windows) > SHORT else True):
                if picture is not None:
                    picture.fill(regions, window)
                yield sampler.sample(regions, window)

        found = TiledInstances(cfg, windows, size)
        for batch in prefetch(predictor.batches(samples())):
            for instances in predictor.detect(batch):
                found.add(instances)
    finally:
        regions.close()
    pixels = None
    if picture is not None:
        pixels = picture.pixels[:, :, ::-1] if predictor.reverse_channels else picture.pixels
    return TiledImage(found.merged(), size, pixels, factor)


class _Overview:
    """An image made smaller as its windows are read."""

    def __init__(self, size: tuple[int, int], factor: int) -> None:
        self._size, self._factor = size, factor
        self.pixels = np.zeros((-(-size[0] // factor), -(-size[1] // factor), 3), np.uint8)

    def fill(self, image: Regions, window: np.ndarray) -> None:
        """Take what a window shows, but for one of a large image as a whole."""
        x0, y0, x1, y1 = window.tolist()
        factor = self._factor
        if factor > 1 and (y1 - y0, x1 - x0) == self._size:
            return
        left, top, right, bottom = x0 // factor, y0 // factor, -(-x1 // factor), -(-y1 // factor)
        squares = left * factor, top * factor, min(right * factor, image.width), min(bottom * factor, image.height)
        part = image.read(squares)
        self.pixels[top:bottom, left:right] = channelwise(part, lambda pixels: mean_of_squares(pixels, factor))


def pasted_columns(instances: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The columns of a `Result` of what `detect_tiled` found.

    Raises:
        DataError: the masks, each as large as the image, do not fit into memory.
    """
    columns = {name: instances[f"pred_{name}"].numpy() for name in ("boxes", "classes")}
    columns["scores"] = instances["scores"].numpy()
    if "crop_masks" in instances:
        height, width = instances["image_size"]
        masks = instances["crop_masks"]
        try:
            columns["masks"] = paste_crop_masks(masks, height, width).numpy()
        except (RuntimeError, MemoryError) as error:
            raise DataError(
                f"The masks of {len(masks)} detections in an image of {width} x {height} px take "
                f"{len(masks) * height * width / 1e9:.0f} GB as arrays. `se-det predict` writes them as RLE."
            ) from error
    return columns
