"""Faster and Mask R-CNN: samples in, losses or detections out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..backbones.trunk import image_area
from ..layers.valid_area import ValidArea
from . import boxes as box_ops
from .masks import paste_masks
from .measured_part import MeasuredPart
from .roi_heads import StandardROIHeads
from .rpn import RPN


class Detector(nn.Module):
    """What meta-architectures share: images become a normalised batch.

    Args:
        backbone: an `FPN`, or another module with its `size_divisibility`.
        pixel_mean, pixel_std: of the three channels, on the 0..255 scale, in the order of the images' channels.
    """

    def __init__(self, *, backbone: nn.Module, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pixel_mean.device

    def inference_parts(self) -> list[nn.Module]:
        """The modules that are fused for inference and computed in TEST.PRECISION."""
        return []

    def score_layers(self) -> list[nn.Module]:
        """The layers that give scores: with random weights nothing is found unless theirs are spread out."""
        return []

    def head_costs(self, maps: Mapping[str, torch.Tensor]) -> list[MeasuredPart]:
        """What is computed after the backbone, to be measured.

        Args:
            maps: of one image, by name.
        """
        return []

    def batch(self, images: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        """Normalise images (3, H, W) and pad them with zeros to one size that the backbone's stride divides.

        The batch has the type and the memory format of the backbone's weights.

        Returns:
            (N, 3, H', W') and the (height, width) of each image.
        """
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        stride = max(self.backbone.size_divisibility, 1)
        height = math.ceil(max(h for h, _ in sizes) / stride) * stride
        width = math.ceil(max(w for _, w in sizes) / stride) * stride
        like = next((p for p in self.backbone.parameters() if p.ndim == 4), self.pixel_mean)
        last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
        batch = torch.empty(
            (len(images), 3, height, width), dtype=like.dtype, device=self.device,
            memory_format=torch.channels_last if last else torch.contiguous_format,
        ).zero_()  # fmt: skip
        for row, image, (h, w) in zip(batch, images, sizes):
            row[:, :h, :w] = (image.to(self.device, non_blocking=True) - self.pixel_mean) / self.pixel_std
        return batch, sizes

    def truth(self, samples: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """The samples' `instances`, their boxes and classes on the device, with the `image_size` of each."""
        return [
            {
                **s["instances"],
                "gt_boxes": s["instances"]["gt_boxes"].to(self.device, self.pixel_mean.dtype, non_blocking=True),
                "gt_classes": s["instances"]["gt_classes"].to(self.device, non_blocking=True),
                "image_size": size,
            }
            for s, size in zip(samples, sizes)
        ]


class GeneralizedRCNN(Detector):
    """Detectron2's GeneralizedRCNN, in plain dicts.

    Args:
        backbone: an `FPN`.
        proposal_generator: see `RPN`; None: a subclass has other proposals.
        roi_heads: see `StandardROIHeads`.
        rpn_features, roi_features: the maps each stage reads.
        pixel_mean, pixel_std: of the three channels, on the 0..255 scale, in the order of the images' channels.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        proposal_generator: RPN | None,
        roi_heads: StandardROIHeads,
        rpn_features: Sequence[str],
        roi_features: Sequence[str],
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.rpn_features = tuple(rpn_features)
        self.roi_features = tuple(roi_features)

    def inference_parts(self) -> list[nn.Module]:
        """What is fused for inference and computed in TEST.PRECISION: all but the layers of scores, boxes and masks."""
        return [self.backbone, self.proposal_generator.rpn_head, *self.roi_heads.inference_parts()]

    def score_layers(self) -> list[nn.Module]:
        scores = (predictor.cls_score for _, predictor in self.roi_heads.box_stages)
        return [self.proposal_generator.rpn_head.objectness_logits, *scores]

    def head_costs(self, maps: Mapping[str, torch.Tensor]) -> list[MeasuredPart]:
        rpn = self.proposal_generator
        shapes = [tuple(maps[name].shape) for name in self.rpn_features]
        channels = maps[self.roi_features[0]].shape[1]
        return [rpn.cost(shapes), *self.roi_heads.costs(channels, rpn.post_nms_topk[1])]

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """Losses in training mode, detections otherwise.

        Args:
            samples: dicts with `image` (3, H, W) uint8 or float, not normalised; in training `instances` with
                `gt_boxes` (n, 4) XYXY px, `gt_classes` (n,), with masks `gt_masks`, with keypoints `gt_keypoints`
                (n, K, 3); for detections optionally `height` and `width`, the size in which results are wanted
                (default: the image's own).

        Returns:
            training: `loss_rpn_cls`, `loss_rpn_loc`, `loss_cls`, `loss_box_reg`, with masks `loss_mask`, with keypoints
            `loss_keypoint`.
            otherwise: a dict for each image, {"instances": {`pred_boxes` (m, 4) XYXY px, `scores` (m,),
            `pred_classes` (m,), with masks `pred_masks` (m, height, width) bool, with keypoints `pred_keypoints`
            (m, K, 3): x, y px and score}}, best first.
        """
        if not self.training:
            return [{"instances": paste_detections(found["instances"])} for found in self.detect(samples)]
        rpn_maps, rpn_areas, roi_maps, sizes = self.maps(samples)
        truth = self.truth(samples, sizes)
        proposals, losses = self.propose(samples, rpn_maps, rpn_areas, sizes, [t["gt_boxes"] for t in truth])
        losses.update(self.roi_heads.losses(roi_maps, proposals, truth))
        return losses

    def detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What `forward` gives in evaluation mode, but with masks as the mask head gives them, not yet in the image:
        who has other work for the device meanwhile pastes them later (`paste_detections`) or never.

        Returns:
            a dict for each image, {"instances": {`pred_boxes`, `scores`, `pred_classes`, with masks `box_masks`
            (m, M, M) probabilities within the boxes, and `image_size` (height, width) that the boxes are in}}.
        """
        rpn_maps, rpn_areas, roi_maps, sizes = self.maps(samples)
        proposals, _ = self.propose(samples, rpn_maps, rpn_areas, sizes)
        detections = self.roi_heads.detect(roi_maps, proposals, sizes)
        return [
            {"instances": resize_detections(d, size, s.get("height", size[0]), s.get("width", size[1]))}
            for d, size, s in zip(detections, sizes, samples)
        ]

    def propose(
        self,
        samples: Sequence[Mapping[str, Any]],
        maps: list[torch.Tensor],
        areas: list[ValidArea | None],
        sizes: Sequence[tuple[int, int]],
        truth: Sequence[torch.Tensor] | None = None,
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """The proposals (p, 4) of each image and, with the boxes of the truth, the losses."""
        proposals, losses = self.proposal_generator(maps, areas, sizes, truth)
        return [boxes for boxes, _ in proposals], losses

    def maps(self, samples: Sequence[Mapping[str, Any]]) -> tuple[list, list, list, list[tuple[int, int]]]:
        """The maps and areas that the proposals are made of, the maps that boxes are pooled from, the images' sizes."""
        x, sizes = self.batch([s["image"] for s in samples])
        maps, areas = self.backbone.features(x, image_area(self.backbone.padding, sizes))
        roi_maps = [self._prepare_for_pooling(maps[name], areas[name]) for name in self.roi_features]
        return [maps[name] for name in self.rpn_features], [areas[name] for name in self.rpn_features], roi_maps, sizes

    def _prepare_for_pooling(self, x: torch.Tensor, area: ValidArea | None) -> torch.Tensor:
        """Under autocast RoIAlign works in float32. Under padding "exact" it reads at an image's border what it would
        read on a map of that size."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return area.replicate_edge(x) if area is not None and area.exact else x


def resize_detections(
    detections: Mapping[str, torch.Tensor], size: tuple[int, int], height: int, width: int
) -> dict[str, Any]:
    """Detections on an image of `size` (height, width), in the coordinates of `height` x `width`, which are added as
    `image_size` where there are masks.

    Boxes and keypoints are scaled; boxes are clipped, and dropped when empty.
    """
    boxes = detections["pred_boxes"]
    scale = boxes.new_tensor([width / size[1], height / size[0]])
    if (height, width) != tuple(size):
        boxes = boxes * scale.repeat(2)
    boxes = box_ops.clip(boxes, height, width)
    kept = box_ops.nonempty(boxes).nonzero()[:, 0]
    result: dict[str, Any] = {name: value[kept] for name, value in detections.items()}
    result["pred_boxes"] = boxes[kept]
    if "pred_keypoints" in result and (height, width) != tuple(size):
        result["pred_keypoints"] = result["pred_keypoints"] * torch.cat([scale, scale.new_ones(1)])
    if "box_masks" in result:
        result["image_size"] = (height, width)
    return result


def paste_detections(instances: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The instances of `GeneralizedRCNN.detect` as `GeneralizedRCNN.forward` gives them: `pred_masks` (m, height,
    width) bool in place of `box_masks` and `image_size`."""
    result = {name: value for name, value in instances.items() if name not in ("box_masks", "image_size")}
    if "box_masks" in instances:
        result["pred_masks"] = paste_masks(instances["box_masks"], result["pred_boxes"], *instances["image_size"])
    return result
