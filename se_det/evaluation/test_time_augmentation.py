"""Detection in several sizes of an image and their mirror images, merged (Detectron2's GeneralizedRCNNWithTTA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..data.transforms import resize_image, short_side_size, to_tensor
from ..detection import boxes as box_ops
from ..detection.rcnn import GeneralizedRCNN, resize_detections
from ..detection.registry import model_facts
from ..errors import ConfigError

VIEWS_PER_BATCH = 3  # Detectron2's: views are padded to the largest of their batch, so that it decides some digits
LEAST_SCORE = 1e-8


@dataclass(frozen=True)
class View:
    """An image in another size, mirrored or not.

    Args:
        image: (3, H, W) uint8.
        scale: (x, y): its width and height as shares of those in which detections are wanted.
    """

    image: torch.Tensor
    scale: tuple[float, float]
    mirrored: bool

    def boxes_in_view(self, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (n, 4) of the image, where they are in the view."""
        return self._mirror(boxes * boxes.new_tensor(self.scale).repeat(2))

    def boxes_in_image(self, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (n, 4) of the view, where they are in the image."""
        return self._mirror(boxes) / boxes.new_tensor(self.scale).repeat(2)

    def _mirror(self, boxes: torch.Tensor) -> torch.Tensor:
        if not self.mirrored:
            return boxes
        x1, y1, x2, y2 = boxes.unbind(1)
        width = self.image.shape[-1]
        return torch.stack([width - x2, y1, width - x1, y2], 1)


class AugmentedInference:
    """What `GeneralizedRCNN.detect` gives, of each image from all its views together.

    The boxes of all views go through one NMS; each mask is the mean of those that the views give for its box.

    Args:
        model: in evaluation mode.
        min_sizes, max_size: short sides of the views, and the longest side that one may have, px.
        flip: whether each also has a mirror image.
        method: see `resize_image`.
    """

    def __init__(
        self, model: GeneralizedRCNN, *, min_sizes: Sequence[int], max_size: int, flip: bool, method: str = "pil"
    ) -> None:
        self._model = model
        self._min_sizes, self._max_size, self._flip, self._method = tuple(min_sizes), max_size, flip, method

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """As `GeneralizedRCNN.detect`. Images are uint8, in the size that they are tested in."""
        return [{"instances": self._detect(sample)} for sample in samples]

    @torch.no_grad()
    def _detect(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        size = sample.get("height", sample["image"].shape[1]), sample.get("width", sample["image"].shape[2])
        views = list(self._views(sample["image"], size))
        heads = self._model.roi_heads
        boxes, scores, classes = [], [], []
        for batch in _batches(views):
            rpn_maps, areas, roi_maps, sizes = self._model.maps([{"image": view.image} for view in batch])
            proposals, _ = self._model.proposal_generator(rpn_maps, areas, sizes)
            found = heads.detect(roi_maps, [b for b, _ in proposals], sizes, masks=False)
            boxes += [view.boxes_in_image(f["pred_boxes"]) for view, f in zip(batch, found)]
            scores += [f["scores"] for f in found]
            classes += [f["pred_classes"] for f in found]
        merged = self._merge(torch.cat(boxes), torch.cat(scores), torch.cat(classes), size)
        if heads.mask_head is not None:
            merged["box_masks"] = self._masks(views, merged)
        return resize_detections(merged, size, *size)

    def _views(self, image: torch.Tensor, size: tuple[int, int]) -> Iterator[View]:
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        for short_side in self._min_sizes:
            height, width = short_side_size(*pixels.shape[:2], short_side, self._max_size)
            resized = to_tensor(resize_image(pixels, height, width, method=self._method))
            scale = width / size[1], height / size[0]
            yield View(resized, scale, False)
            if self._flip:
                yield View(resized.flip(2), scale, True)

    def _merge(
        self, boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, size: tuple[int, int]
    ) -> dict[str, Any]:
        good = (scores > LEAST_SCORE).nonzero()[:, 0]
        return self._model.roi_heads.select(box_ops.clip(boxes[good], *size), scores[good], classes[good])

    def _masks(self, views: Sequence[View], merged: Mapping[str, torch.Tensor]) -> torch.Tensor:
        total: torch.Tensor | float = 0.0
        for batch in _batches(views):
            roi_maps = self._model.maps([{"image": view.image} for view in batch])[2]
            boxes = [view.boxes_in_view(merged["pred_boxes"]) for view in batch]
            masks = self._model.roi_heads.box_masks(roi_maps, boxes, [merged["pred_classes"]] * len(batch))
            for view, own in zip(batch, masks):
                total = total + (own.flip(2) if view.mirrored else own)
        return total / len(views)


def _batches(views: Sequence[View]) -> Iterator[Sequence[View]]:
    for first in range(0, len(views), VIEWS_PER_BATCH):
        yield views[first : first + VIEWS_PER_BATCH]


def build_augmented_inference(cfg: CfgNode, model: nn.Module) -> AugmentedInference:
    """What TEST.AUG says, of a model that `check_test_augmentation` lets through."""
    aug = cfg.TEST.AUG
    return AugmentedInference(
        model, min_sizes=aug.MIN_SIZES, max_size=aug.MAX_SIZE, flip=aug.FLIP, method=cfg.INPUT.RESIZE
    )


def check_test_augmentation(cfg: CfgNode) -> None:
    """Refuse a TEST.AUG that cannot work.

    Raises:
        ConfigError: naming the key and the remedy.
    """
    aug = cfg.TEST.AUG
    if not aug.ENABLED:
        return
    if not model_facts(cfg).test_augmentation:
        raise ConfigError(
            f"TEST.AUG.ENABLED is True and MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}: images are augmented "
            "at test time for two-stage detectors only, as in Detectron2. Set TEST.AUG.ENABLED False."
        )
    if cfg.MODEL.KEYPOINT_ON:
        raise ConfigError(
            "TEST.AUG.ENABLED is True and MODEL.KEYPOINT_ON, too: keypoints are not augmented at test time. Set "
            "TEST.AUG.ENABLED False."
        )
    if not aug.MIN_SIZES or not all(isinstance(size, int) and size > 0 for size in aug.MIN_SIZES):
        raise ConfigError(f"TEST.AUG.MIN_SIZES must be short sides in px, such as (400, 800), got {aug.MIN_SIZES}.")
