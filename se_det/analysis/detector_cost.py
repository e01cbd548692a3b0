"""Cost of each part of a detector at one image size."""

from __future__ import annotations

from functools import partial

import torch
from fvcore.common.config import CfgNode

from ..detection import build_detector
from ..detection.measured_part import MeasuredPart
from .cost import Cost, measure


def measure_detector(cfg: CfgNode, size: tuple[int, int]) -> list[tuple[str, Cost]]:
    """Measure trunk, pyramid and heads in inference on one image.

    The box head gets RPN.POST_NMS_TOPK_TEST proposals and the mask head TEST.DETECTIONS_PER_IMAGE detections, the
    largest possible numbers. The pyramid's cost is the backbone's less the trunk's. Sorting, NMS and RoIAlign are not
    counted as multiply-adds.

    Args:
        size: (height, width) in px; rounded up to a multiple of the backbone's largest stride, as batches are.

    Returns:
        (name of the part, cost), in the order of the forward pass.
    """
    detector = build_detector(cfg).to("meta").eval()
    backbone = detector.backbone
    stride = max(backbone.size_divisibility, 1)
    image = (3, *(-(-side // stride) * stride for side in size))
    both = measure(backbone, image, forward=lambda x: backbone.features(x)[0])
    parts = [("backbone", both)]
    bottom_up = getattr(backbone, "bottom_up", None)  # none where a trunk stands alone
    if bottom_up is not None:
        trunk = measure(bottom_up, image, forward=lambda x: bottom_up.features(x)[0])
        parts = [("backbone.bottom_up", trunk), ("backbone (pyramid)", _less(both, trunk))]
    with torch.no_grad():
        maps = backbone.features(torch.empty(1, *image, device="meta"))[0]
    for part in detector.head_costs(maps):
        parts.append((part.name, measure(part.module, (1,), forward=partial(_on_empty, part))))
    return parts


def _on_empty(part: MeasuredPart, x: torch.Tensor) -> object:
    """`part` on tensors of its shapes for each row of `x`, on its device."""
    grad = torch.is_grad_enabled()
    return part.run([x.new_empty(len(x) * count, *shape, requires_grad=grad) for count, *shape in part.shapes])


def _less(both: Cost, part: Cost) -> Cost:
    """`both` less `part`; the peak is that of both, as the trunk's maps are alive meanwhile."""
    return Cost(
        parameters=both.parameters - part.parameters,
        multiply_adds=both.multiply_adds - part.multiply_adds,
        parameter_bytes=both.parameter_bytes - part.parameter_bytes,
        training_bytes=both.training_bytes - part.training_bytes,
        inference_bytes=both.inference_bytes,
    )
