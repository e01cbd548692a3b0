"""Panoptic FPN (Kirillov et al., arXiv 1901.02446): Mask R-CNN with a semantic head on the same pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ...backbones.trunk import image_area
from ...errors import ConfigError
from ..build import check_rcnn, rcnn_parts
from ..masks import paste_masks
from ..rcnn import GeneralizedRCNN, MeasuredPart, paste_detections, resize_detections
from ..registry import META_ARCHITECTURES, MODEL_FACTS, ModelFacts, two_stage_norms
from ..sem_seg_head import SemSegFPNHead, pixel_labels, resize_logits
from .semantic_segmentor import build_sem_seg_head, check_pixel_classes, measured_head

Panoptic = tuple[torch.Tensor, list[dict[str, Any]]]


class PanopticFPN(GeneralizedRCNN):
    """Detectron2's PanopticFPN, in plain dicts.

    Args:
        sem_seg_head: see `SemSegFPNHead`; its class 0 is all things.
        instance_loss_weight: multiplies the losses of boxes and masks of the RoI heads, as in Detectron2.
        overlap_threshold, stuff_area_limit, score_threshold: see `combine_segments`.
        others: of `GeneralizedRCNN`, whose RoI heads have a mask head.
    """

    def __init__(
        self,
        *,
        sem_seg_head: SemSegFPNHead,
        instance_loss_weight: float = 1.0,
        overlap_threshold: float = 0.5,
        stuff_area_limit: float = 4096,
        score_threshold: float = 0.5,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.sem_seg_head = sem_seg_head
        self.instance_loss_weight = instance_loss_weight
        self.overlap_threshold, self.stuff_area_limit = overlap_threshold, stuff_area_limit
        self.score_threshold = score_threshold

    def inference_parts(self) -> list[nn.Module]:
        """As of `GeneralizedRCNN`, with the semantic head but for its layer of scores."""
        return [*super().inference_parts(), *self.sem_seg_head.inference_parts()]

    def score_layers(self) -> list[nn.Module]:
        return [*super().score_layers(), self.sem_seg_head.predictor]

    def head_costs(self, maps: Mapping[str, torch.Tensor]) -> list[MeasuredPart]:
        """As of `GeneralizedRCNN`, and the semantic head."""
        return [*super().head_costs(maps), measured_head(self.sem_seg_head, maps)]

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """Losses in training mode, segments otherwise.

        Args:
            samples: as of `GeneralizedRCNN.forward`, in training with `sem_seg` (H, W), the classes of the pixels.

        Returns:
            training: the losses of `GeneralizedRCNN` and `loss_sem_seg`.
            otherwise: for each image a dict of `instances` (see `GeneralizedRCNN.forward`), `sem_seg` logits (K,
            height, width) and `panoptic_seg`, see `combine_segments`.
        """
        if not self.training:
            return [{**found, "instances": paste_detections(found["instances"])} for found in self.detect(samples)]
        rpn_maps, rpn_areas, roi_maps, logits, sizes = self._maps_and_logits(samples)
        losses = self.sem_seg_head.loss(logits, [s["sem_seg"] for s in samples])
        truth = self.truth(samples, sizes)
        proposals, rpn_losses = self.proposal_generator(rpn_maps, rpn_areas, sizes, [t["gt_boxes"] for t in truth])
        losses.update(rpn_losses)
        found = self.roi_heads.losses(roi_maps, [boxes for boxes, _ in proposals], truth)
        # Not loss_cls: the dict of weights that Detectron2 multiplies has no entry for it.
        weight = self.instance_loss_weight
        losses.update({name: value if name == "loss_cls" else value * weight for name, value in found.items()})
        return losses

    def detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What `forward` gives in evaluation mode, but with masks of `instances` as `GeneralizedRCNN.detect` has
        them."""
        rpn_maps, rpn_areas, roi_maps, logits, sizes = self._maps_and_logits(samples)
        proposals, _ = self.proposal_generator(rpn_maps, rpn_areas, sizes)
        detections = self.roi_heads.detect(roi_maps, [boxes for boxes, _ in proposals], sizes)
        results = []
        for found, one, size, s in zip(detections, logits, sizes, samples):
            wanted = s.get("height", size[0]), s.get("width", size[1])
            instances, sem_seg = resize_detections(found, size, *wanted), resize_logits(one, size, *wanted)
            results.append({
                "instances": instances, "sem_seg": sem_seg, "panoptic_seg": self._combined(instances, sem_seg),
            })  # fmt: skip
        return results

    def _maps_and_logits(
        self, samples: Sequence[Mapping[str, Any]]
    ) -> tuple[list, list, list, torch.Tensor, list[tuple[int, int]]]:
        """As `maps`, with the semantic logits before the sizes."""
        x, sizes = self.batch([s["image"] for s in samples])
        maps, areas = self.backbone.features(x, image_area(self.backbone.padding, sizes))
        roi_maps = [self._prepare_for_pooling(maps[name], areas[name]) for name in self.roi_features]
        rpn = [maps[name] for name in self.rpn_features], [areas[name] for name in self.rpn_features]
        return *rpn, roi_maps, self.sem_seg_head(maps, areas), sizes

    def _combined(self, instances: Mapping[str, Any], sem_seg: torch.Tensor) -> Panoptic:
        return combine_outputs(instances, pixel_labels(sem_seg), **self.limits())

    def limits(self) -> dict[str, float]:
        """What `combine_segments` is given besides what was found."""
        return {"overlap_threshold": self.overlap_threshold, "stuff_area_limit": self.stuff_area_limit,
                "score_threshold": self.score_threshold}  # fmt: skip


def combine_outputs(
    instances: Mapping[str, Any], labels: torch.Tensor, *, score_threshold: float, **limits: float
) -> Panoptic:
    """`combine_segments` of instances as `GeneralizedRCNN.detect` gives them; only masks that may take part are put
    into the image."""
    sure = (instances["scores"] >= score_threshold).nonzero()[:, 0]
    masks = paste_masks(instances["box_masks"][sure], instances["pred_boxes"][sure], *instances["image_size"])
    return combine_segments(
        masks, instances["scores"][sure], instances["pred_classes"][sure], labels, numbers=sure.tolist(),
        score_threshold=score_threshold, **limits,
    )  # fmt: skip


def combine_segments(
    masks: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    labels: torch.Tensor,
    *,
    overlap_threshold: float,
    stuff_area_limit: float,
    score_threshold: float,
    numbers: Sequence[int] | None = None,
) -> Panoptic:
    """One map of segments out of instances and classes of pixels (Detectron2's
    `combine_semantic_and_instance_outputs`): the surer of two instances is in front, and stuff is behind all.

    Args:
        masks: bool (n, H, W).
        scores, classes: (n,).
        labels: int64 (H, W), the class of each pixel; class 0, all things, makes no segment.
        overlap_threshold: an instance of which a larger share lies under surer ones is left out.
        stuff_area_limit: px; smaller regions of stuff are left out.
        score_threshold: instances that score less are left out.
        numbers: what to call the instances; None counts them.

    Returns:
        int32 (H, W), the segments' numbers, 0 for none; and for each segment a dict of `id`, `isthing`, `category_id`
        (the class of the instance or of the pixels) and, of a thing, `score` and `instance_id`, of stuff `area` px.
    """
    segments = torch.zeros_like(labels, dtype=torch.int32)
    infos: list[dict[str, Any]] = []
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    known = list(zip(scores.tolist(), classes.tolist(), masks.flatten(1).sum(1).tolist() if len(masks) else []))
    for at in order:
        score, label, area = known[at]
        if score < score_threshold:
            break
        if area == 0:
            continue
        mask = masks[at]
        hidden = int((mask & (segments > 0)).sum())
        if hidden / area > overlap_threshold:
            continue
        if hidden:
            mask = mask & (segments == 0)
        segments[mask] = len(infos) + 1
        infos.append({
            "id": len(infos) + 1, "isthing": True, "score": score, "category_id": label,
            "instance_id": at if numbers is None else numbers[at],
        })  # fmt: skip
    for label in labels.unique().tolist():
        if label == 0:
            continue
        mask = (labels == label) & (segments == 0)
        area = int(mask.sum())
        if area < stuff_area_limit:
            continue
        segments[mask] = len(infos) + 1
        infos.append({"id": len(infos) + 1, "isthing": False, "category_id": label, "area": area})
    return segments, infos


@META_ARCHITECTURES.register(name="PanopticFPN")
def panoptic_fpn(cfg: CfgNode) -> PanopticFPN:
    """Instances and a class for every pixel, and both as one map."""
    parts = rcnn_parts(cfg)
    panoptic = cfg.MODEL.PANOPTIC_FPN
    return PanopticFPN(
        **parts,
        sem_seg_head=build_sem_seg_head(cfg, parts["backbone"]),
        instance_loss_weight=panoptic.INSTANCE_LOSS_WEIGHT,
        overlap_threshold=panoptic.COMBINE.OVERLAP_THRESH,
        stuff_area_limit=panoptic.COMBINE.STUFF_AREA_LIMIT,
        score_threshold=panoptic.COMBINE.INSTANCES_CONFIDENCE_THRESH,
    )


def check_panoptic(cfg: CfgNode) -> None:
    """Refuse what its parts do not have.

    Raises:
        ConfigError: naming the key and the value.
    """
    check_rcnn(cfg)
    check_pixel_classes(cfg)
    if not cfg.MODEL.MASK_ON:
        raise ConfigError(
            "MODEL.META_ARCHITECTURE PanopticFPN needs the instances' masks, and MODEL.MASK_ON is False: set it True."
        )


MODEL_FACTS.register(
    ModelFacts(
        norms=lambda cfg: (*two_stage_norms(cfg), "MODEL.SEM_SEG_HEAD.NORM"), two_stage=True, check=check_panoptic
    ),
    name="PanopticFPN",
)
