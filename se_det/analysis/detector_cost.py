"""Cost of each part of a detector at one image size."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..detection import build_detector
from .cost import Cost, measure


def measure_detector(cfg: CfgNode, size: tuple[int, int]) -> list[tuple[str, Cost]]:
    """Measure trunk, pyramid, RPN head, box head and mask head in inference on one image.

    The box head gets RPN.POST_NMS_TOPK_TEST proposals and the mask head TEST.DETECTIONS_PER_IMAGE detections, the
    largest possible numbers. The pyramid's cost is the backbone's less the trunk's. Sorting, NMS and RoIAlign are not
    counted as multiply-adds.

    Args:
        size: (height, width) in px; rounded up to a multiple of the backbone's largest stride, as batches are.

    Returns:
        (name of the part, cost), in the order of the forward pass.
    """
    detector = build_detector(cfg).to("meta").eval()
    backbone, heads = detector.backbone, detector.roi_heads
    stride = max(backbone.size_divisibility, 1)
    image = (3, *(-(-side // stride) * stride for side in size))
    trunk = measure(backbone.bottom_up, image, forward=lambda x: backbone.bottom_up.features(x)[0])
    both = measure(backbone, image, forward=lambda x: backbone.features(x)[0])
    parts = [("backbone.bottom_up", trunk), ("backbone (pyramid)", _less(both, trunk))]
    with torch.no_grad():
        maps = backbone.features(torch.empty(1, *image, device="meta"))[0]
    shapes = [maps[name].shape[1:] for name in detector.rpn_features]

    def rpn(x: torch.Tensor) -> object:
        levels = [x.new_empty(len(x), *shape, requires_grad=torch.is_grad_enabled()) for shape in shapes]
        return detector.proposal_generator.rpn_head(levels, [None] * len(levels))

    head = detector.proposal_generator.rpn_head
    parts.append(("proposal_generator.rpn_head", measure(head, (1,), forward=rpn)))
    channels, side = backbone.channels[detector.roi_features[0]], cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
    boxes = nn.ModuleList(nn.Sequential(*stage) for stage in heads.box_stages)
    proposals = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    parts.append((
        f"roi_heads.box_* ({proposals} proposals)",
        measure(boxes, (proposals, channels, side, side),
                forward=lambda x: [stage(x.flatten(0, 1)) for stage in boxes]),
    ))  # fmt: skip
    if cfg.MODEL.MASK_ON:
        detections, side = cfg.TEST.DETECTIONS_PER_IMAGE, cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
        parts.append((
            f"roi_heads.mask_head ({detections} detections)",
            measure(heads.mask_head, (detections, channels, side, side),
                    forward=lambda x: heads.mask_head(x.flatten(0, 1))),
        ))  # fmt: skip
    return parts


def _less(both: Cost, part: Cost) -> Cost:
    """`both` less `part`; the peak is that of both, as the trunk's maps are alive meanwhile."""
    return Cost(
        parameters=both.parameters - part.parameters,
        multiply_adds=both.multiply_adds - part.multiply_adds,
        parameter_bytes=both.parameter_bytes - part.parameter_bytes,
        training_bytes=both.training_bytes - part.training_bytes,
        inference_bytes=both.inference_bytes,
    )
