"""A whole detector as one graph, for any number of images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..detection import boxes as box_ops
from ..detection.rcnn import Detector
from ..detection.registry import META_ARCHITECTURES
from ..errors import ExportError
from ..internals.symbolic_size import as_size
from ..layers.valid_area import ValidArea
from .architectures import EXPORTERS, GraphDetector
from .comparing import FOUND, detector_differences
from .found import Found
from .label_map import label_map
from .metadata import Labels, detector_metadata
from .networks import Exportable, prepare_for_export
from .resizing import resize, short_side_sizes
from .tensor_boxes import ANYTHING, NOTHING

PIXELS = "sem_seg"
# Of the images that a file is checked with: batch, height, width.
SHAPES = ((2, 96, 128), (1, 70, 90), (3, 101, 77))


def detector(
    model: Detector, cfg: CfgNode, *, preprocessing: bool = True, class_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None, thresholds: Sequence[float | None] | None = None,
    keypoint_names: Sequence[str] = (), skeleton: Sequence[tuple[int, int]] = (),
    pixel_class_names: Sequence[str] | None = None, pixel_category_ids: Sequence[int] | None = None,
) -> Exportable:  # fmt: skip
    """A whole detector as a network to export: see `DetectorGraph`, or without `preprocessing` `PreparedDetectorGraph`.

    Args:
        model: as `build_detector(cfg)` made it, with its weights.
        class_names, category_ids, thresholds, keypoint_names, skeleton, pixel_class_names, pixel_category_ids: for the
            metadata; see `Predictor`.

    Raises:
        ConfigError: nothing is registered that exports MODEL.META_ARCHITECTURE.
        ExportError: the model cannot be exported as it is configured; the sentence says why.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name in META_ARCHITECTURES.names() and name not in EXPORTERS.names():
        raise ExportError(
            f"A {name} is not exported as a whole yet, only {', '.join(EXPORTERS.names())}: export its backbone "
            "(--part backbone), or register its steps in se_det.export.EXPORTERS."
        )
    labels = Labels.of(
        cfg,
        class_names=class_names,
        category_ids=category_ids,
        thresholds=thresholds,
        keypoint_names=keypoint_names,
        skeleton=skeleton,
        pixel_class_names=pixel_class_names,
        pixel_category_ids=pixel_category_ids,
    )
    steps = EXPORTERS.get(name, "MODEL.META_ARCHITECTURE")(prepare_for_export(model))
    kind = DetectorGraph if preprocessing else PreparedDetectorGraph
    graph = kind(
        steps,
        model,
        short_side=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        reverse_channels=cfg.INPUT.FORMAT == "BGR",
    )
    metadata = detector_metadata(
        cfg, model, graph.outputs, max_detections=steps.max_detections, preprocessing=preprocessing, labels=labels
    )
    return Exportable(
        graph.eval(), graph.outputs, SHAPES, inputs=graph.inputs, make_inputs=graph.make_inputs, free=graph.free,
        metadata=metadata, differences=detector_differences,
    )  # fmt: skip


class DetectorGraph(nn.Module):
    """Images as they were read to detections in their own px.

    Args:
        steps: the meta-architecture's, see `EXPORTERS`.
        model: whose normalisation and stride are used.
        short_side, max_size: see `short_side_size`.
        reverse_channels: the model takes BGR.
    """

    inputs: tuple[str, ...] = ("images", "sizes")
    free: tuple[tuple[int, ...], ...] = ((0, 1, 2), (0,))

    def __init__(
        self, steps: GraphDetector, model: Detector, *, short_side: int, max_size: int, reverse_channels: bool
    ) -> None:
        super().__init__()
        self.steps = steps
        self.outputs = ((*FOUND, *steps.extras) if steps.max_detections else ()) + (PIXELS,) * steps.labels_pixels
        self.stride = max(model.backbone.size_divisibility, 1)
        self.padding = model.backbone.padding
        self.short_side, self.max_size, self.reverse_channels = short_side, max_size, reverse_channels
        self.register_buffer("mean", model.pixel_mean.clone())
        self.register_buffer("std", model.pixel_std.clone())

    def make_inputs(self, shape: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Images (batch, height, width) of smooth noise, each a few px smaller than the one before."""
        batch, height, width = shape
        random = torch.Generator().manual_seed(0)
        coarse = torch.rand(batch, 3, 8, 8, generator=random) * 255
        images = nn.functional.interpolate(coarse, (height, width), mode="bilinear").to(torch.uint8)
        shrunk = 5 * torch.arange(batch)[:, None]
        return images.permute(0, 2, 3, 1).contiguous(), torch.tensor([height, width]) - shrunk

    def forward(self, images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Detect.

        Args:
            images: uint8 (N, H, W, 3) RGB, smaller ones padded at the bottom and on the right with anything.
            sizes: int64 (N, 2) height and width of each image's own part.

        Returns:
            `boxes` float32 (N, D, 4) XYXY px of the original, `scores` (N, D) by falling score, `classes` int64 (N, D),
            `counts` int64 (N,): how many there are; after those score 0 and class -1. Then the steps' `extras`. Of
            steps that label pixels, last or alone, `sem_seg` uint8 (N, H, W): the class of each pixel of the original,
            `label_map.BEYOND` beyond an image.
        """
        resized = short_side_sizes(sizes, self.short_side, self.max_size)
        cells = (resized.amax(0) + self.stride - 1) // self.stride
        height, width = (as_size(side) * self.stride for side in cells.unbind())
        x = resize(images, sizes, resized, height, width)
        if self.reverse_channels:
            x = x.flip(1)
        return self._found(x, resized, sizes, images.shape[1], images.shape[2])

    def _found(
        self, x: torch.Tensor, resized: torch.Tensor, sizes: torch.Tensor, height: int, width: int
    ) -> tuple[torch.Tensor, ...]:
        """From pixels (N, 3, H, W) in the model's order to the outputs, classes of pixels on maps of this size."""
        inside = ValidArea(resized).mask(x)
        x = torch.where(inside, (x - self.mean) / self.std, 0.0)
        area = None if self.padding == "keep" else ValidArea(resized, self.padding == "exact")
        found = self.steps(x, area, resized)
        outputs = self._instances(found, resized, sizes) if self.steps.max_detections else ()
        if found.pixels is not None:
            outputs = (*outputs, label_map(found.pixels, resized, sizes, height, width))
        return outputs

    def _instances(self, found: Found, resized: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Detections in px of the original, best first."""
        boxes, scores, classes, extras, _ = found
        ratio = (sizes.double() / resized.double()).float().flip(1)[:, None]  # of x and y
        boxes = boxes * ratio.repeat(1, 1, 2)
        limits = sizes.to(boxes.dtype).flip(1).repeat(1, 2)[:, None]
        boxes = boxes.clamp(min=0).minimum(limits)
        # What scaling back has made empty goes, and what is left moves up.
        scores = torch.where(box_ops.nonempty(boxes), scores, NOTHING)
        scores, order = scores.topk(scores.shape[1], 1)
        there = scores > ANYTHING
        if "keypoints" in extras:
            points = extras["keypoints"]
            extras = {**extras, "keypoints": torch.cat([points[..., :2] * ratio[:, :, None], points[..., 2:]], -1)}

        def ordered(values: torch.Tensor, nothing: float) -> torch.Tensor:
            shape = (*order.shape, *[1] * (values.ndim - 2))
            chosen = values.gather(1, order.view(shape).expand(values.shape))
            return torch.where(there.view(shape), chosen, nothing)

        return (
            ordered(boxes, 0.0),
            torch.where(there, scores, 0.0),
            ordered(classes, -1),
            there.long().sum(1),
            *(ordered(extras[name], 0.0) for name in self.steps.extras),
        )


class PreparedDetectorGraph(DetectorGraph):
    """The same for images that were resized before."""

    inputs = ("images", "sizes", "scales")
    free = ((0, 2, 3), (0,), (0,))

    def make_inputs(self, shape: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """The same, as they would come to the network, resized by one and a half."""
        images, sizes = super().make_inputs(shape)
        scales = torch.full((shape[0], 2), 1 / 1.5)
        return images.permute(0, 3, 1, 2).float().contiguous(), sizes, scales

    def forward(self, images: torch.Tensor, sizes: torch.Tensor, scales: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Detect.

        Args:
            images: float32 (N, 3, H, W), values 0 to 255 in the model's order of channels, not normalised.
            sizes: int64 (N, 2) height and width of each image's own part, resized.
            scales: float32 (N, 2) what they are multiplied by to be the original's height and width.

        Returns:
            as `DetectorGraph`.
        """
        height, width = (-(-side // self.stride) * self.stride for side in images.shape[2:])
        x = nn.functional.pad(images, (0, width - images.shape[3], 0, height - images.shape[2]))
        original = (sizes.double() * scales.double()).round().long()
        last = (as_size(side) for side in original.amax(0).unbind()) if self.steps.labels_pixels else (0, 0)
        return self._found(x, sizes, original, *last)
