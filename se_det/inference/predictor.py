"""From an image file to detections in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..config.loading import get_key
from ..config.paths import expand_path
from ..config.resolution import Decision, Resolution
from ..data.class_names import distinct_names
from ..data.images import FORMATS, read_image
from ..data.loader import LABEL_PIXELS
from ..data.pixels import check_pixels
from ..data.transforms import resize_image, short_side_size, to_tensor
from ..detection import build_detector
from ..detection.build import check_model
from ..detection.compilation import check_compiler, compile_backbone
from ..detection.fuse import check_precision, prepare_for_inference
from ..detection.rcnn import paste_detections
from ..detection.registry import model_facts
from ..detection.sem_seg_head import pixel_labels
from ..device import select_device
from ..errors import ConfigError, DataError
from ..weights import config_of_checkpoint, load_weights, open_configured_weights
from .exported import check_exported_keys, config_of_exported, input_decisions, open_exported
from .result import Result
from .runtimes import is_exported
from .tiled import build_window_sampler, detect_tiled, pasted_columns

T = TypeVar("T")


def _shape(sample: Mapping[str, Any]) -> torch.Size:
    return sample["image"].shape


class Predictor:
    """A detector that takes pictures: `Predictor("output/model_best.pth")`, or `Predictor(cfg)`.

    Args:
        cfg: the config the weights were trained with, or their checkpoint; None takes the config that it carries.
        weights: a checkpoint, or an exported detector of any of `runtimes.RUNTIMES`; None takes cfg.MODEL.WEIGHTS.
        class_names: names of the classes in order; None takes those kept in the checkpoint, else their numbers.

    Attributes:
        cfg: the config as it is used.
        class_names, category_ids: of each class.
        pixel_class_names, pixel_category_ids: of each class of pixels, of a model that labels them; else empty.
        thresholds: the score of best F1 of each class, as the checkpoint keeps it; None where there is none.
        keypoint_names, skeleton: of a detector with keypoints, and which of them are joined by a line.
        window_sampler: cuts images into windows, under TEST.TILE; None where they are looked at as a whole.

    Raises:
        ConfigError: no weights were given, or alone those of a checkpoint that carries no config; or the config
            contradicts the one they were trained with.
        WeightsError: the weights do not fit the config.
    """

    def __init__(
        self,
        cfg: CfgNode | str | Path | None = None,
        weights: str | Path | None = None,
        *,
        class_names: list[str] | None = None,
    ) -> None:
        if isinstance(cfg, (str, Path)):
            if weights:
                raise ConfigError(
                    f"Predictor got '{cfg}' beside the weights {weights}: give a config as load_config('{cfg}'), or "
                    "the weights alone."
                )
            cfg, weights = None, cfg
        if cfg is None:
            if not weights:
                raise ConfigError("No weights were given: pass a checkpoint, such as output/model_best.pth.")
            cfg = config_of_exported(weights) if is_exported(weights) else config_of_checkpoint(weights, data=False)
        stage = Resolution(cfg)
        if weights:
            stage.decide([Decision("MODEL.WEIGHTS", expand_path(weights, "MODEL.WEIGHTS"), "the caller")])
        if is_exported(stage.cfg.MODEL.WEIGHTS):
            self._open_exported(stage, class_names)
            return
        class_keys = model_facts(stage.cfg).class_keys
        file, decisions = open_configured_weights(stage.cfg, trained=True, class_keys=class_keys)
        if file is None:
            raise ConfigError("No weights were given: pass a checkpoint, or set MODEL.WEIGHTS.")
        stage.decide(decisions)
        cfg = stage.finish(check_model)
        categories = file.extra.get("categories") or []
        if cfg.INPUT.FORMAT not in FORMATS:
            raise ConfigError(f"INPUT.FORMAT '{cfg.INPUT.FORMAT}' is unknown: use {' or '.join(FORMATS)}.")
        self.cfg = cfg
        self.reverse_channels = cfg.INPUT.FORMAT == "RGB"
        self.window_sampler = build_window_sampler(cfg)
        check_precision(cfg.TEST.PRECISION)
        device = select_device(cfg.MODEL.DEVICE)
        if cfg.TEST.COMPILE:
            check_compiler(device)
        model = build_detector(cfg)
        load_weights(model, file, strict=True)
        self.model = self._prepare(model.to(device))
        if not class_keys:  # proposals: boxes of objects of any class
            categories = [{"id": 0, "name": "object"}]
        count = get_key(cfg, class_keys[0]) if class_keys else 1
        self.category_ids: list[int] = [int(c["id"]) for c in categories] or list(range(count))
        self.keypoint_names, self.skeleton = _keypoints(cfg, categories)
        self.class_names: list[str] = (
            class_names or [str(c["name"]) for c in categories] or list(map(str, range(count)))
        )
        if len(self.class_names) != count:
            raise ConfigError(f"{len(self.class_names)} class names were given for {count} classes.")
        labels = (file.extra.get("pixel_classes") or []) if cfg.MODEL.META_ARCHITECTURE in LABEL_PIXELS else None
        numbers = range(0 if labels is None else cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        self.pixel_category_ids: list[int] = [int(c["id"]) for c in labels or ()] or list(numbers)
        self.pixel_class_names: list[str] = [str(c["name"]) for c in labels or ()] or list(map(str, numbers))
        stored = file.extra.get("thresholds") or {}
        labels = distinct_names([str(c["name"]) for c in categories], self.category_ids)
        self.thresholds: list[float | None] = [stored.get(label) for label in labels] or [None] * count

    def _prepare(self, model: nn.Module) -> nn.Module:
        """The model with its weights as it is run."""
        model = prepare_for_inference(model, precision=self.cfg.TEST.PRECISION)
        if self.cfg.TEST.COMPILE:
            compile_backbone(model)
        return model

    def _open_exported(self, stage: Resolution, class_names: list[str] | None) -> None:
        """Have a runtime in the place of PyTorch's model; what the file carries takes the place of a checkpoint."""
        path = stage.cfg.MODEL.WEIGHTS
        check_exported_keys(stage.cfg)
        self.model = open_exported(path, stage.cfg.MODEL.DEVICE)
        stage.decide(input_decisions(stage.cfg, self.model.metadata))
        self.cfg = stage.finish()
        self.reverse_channels = self.cfg.INPUT.FORMAT == "RGB"
        self.window_sampler = None
        metadata = self.model.metadata
        pixels, points = metadata.get("pixel_classes", ()), metadata.get("keypoints", {"names": [], "skeleton": []})
        self.pixel_category_ids = [int(c["id"]) for c in pixels]
        self.pixel_class_names = [str(c["name"]) for c in pixels]
        self.keypoint_names, self.skeleton = points["names"], tuple(map(tuple, points["skeleton"]))
        # Of classes of pixels alone as of their checkpoint.
        classes = metadata["classes"] or [{"id": 0, "name": "object", "threshold": None}]
        self.category_ids = [int(c["id"]) for c in classes]
        self.class_names = class_names or [str(c["name"]) for c in classes]
        if len(self.class_names) != len(classes):
            raise ConfigError(f"{len(self.class_names)} class names were given for {len(classes)} classes.")
        self.thresholds = [c["threshold"] for c in classes]

    def __call__(self, image: str | Path | np.ndarray | Sequence[str | Path | np.ndarray]) -> Result | list[Result]:
        """Detect.

        Args:
            image: a file, or pixels (height, width, 3) uint8 in the order BGR, as OpenCV reads them; or a list of such,
                which is detected in batches (see `batches`).

        Returns:
            `boxes` float32 (n, 4) XYXY px, `scores` (n,) best first, `classes` int64 (n,) and, with a mask head,
            `masks` bool (n, height, width), with a keypoint head `keypoints` (n, K, 3): x, y px and score, all in the
            image's own size, as a `Result`, which has the classes of pixels and the panoptic segments too where the
            model finds them. Of a list, a list of these.

        Raises:
            DataError: a file cannot be read as an image, or something else was given.

        Under TEST.TILE each image is detected in window by window (see `tiled`).
        """
        if isinstance(image, (str, Path, np.ndarray)):
            return self([image])[0]
        # Of these, too, one could take the elements; none would be an image.
        if not isinstance(image, Iterable) or isinstance(image, (bytes, bytearray, Mapping, torch.Tensor)):
            check_pixels(image, "BGR")
        if self.window_sampler is not None:
            return [self._in_windows(one) for one in image]
        found: list[Result] = []
        samples = (
            self.sample(read_image(expand_path(one, "The image")) if isinstance(one, (str, Path)) else one)
            for one in image
        )
        for batch in self.batches(samples):
            for sample, output in zip(batch, self.outputs(batch)):
                instances = output["instances"]
                # Few numbers leave the device: whole masks are many times as large.
                pasted = paste_detections({k: v.cpu() if torch.is_tensor(v) else v for k, v in instances.items()})
                columns = {name.removeprefix("pred_"): value.numpy() for name, value in pasted.items()}
                found.append(self._result(columns, (sample["height"], sample["width"]), output))
        return found

    def _in_windows(self, image: str | Path | np.ndarray) -> Result:
        if isinstance(image, (str, Path)):
            image = expand_path(image, "The image")
        else:
            check_pixels(image, "BGR")
        found = detect_tiled(self, image)
        return self._result(pasted_columns(found.instances), found.size)

    def _result(
        self, columns: dict[str, np.ndarray], size: tuple[int, int], output: Mapping[str, Any] | None = None
    ) -> Result:
        output = output or {}
        return Result(
            columns, class_names=self.class_names, category_ids=self.category_ids, thresholds=self.thresholds,
            image_size=size, sem_seg=output.get("sem_seg"), panoptic_seg=output.get("panoptic_seg"),
            pixel_class_names=self.pixel_class_names, skeleton=self.skeleton,
        )  # fmt: skip

    def sample(self, pixels: np.ndarray) -> dict[str, Any]:
        """An image as the detector takes it: resized, with its own size.

        Args:
            pixels: (height, width, 3) uint8, BGR.

        Raises:
            DataError: `pixels` are not such an image.
        """
        check_pixels(pixels, "BGR")
        height, width = pixels.shape[:2]
        if self.reverse_channels:
            pixels = pixels[:, :, ::-1]
        size = short_side_size(height, width, self.cfg.INPUT.MIN_SIZE_TEST, self.cfg.INPUT.MAX_SIZE_TEST)
        return {
            "image": to_tensor(resize_image(pixels, *size, method=self.cfg.INPUT.RESIZE)),
            "height": height,
            "width": width,
        }

    def batches(self, items: Iterable[T], shape: Callable[[T], object] = _shape) -> Iterator[list[T]]:
        """Samples that follow each other and are of one size after resizing, at most TEST.IMS_PER_BATCH together: none
        is padded for another, so that each is detected in as if it were alone, up to rounding.

        Args:
            items: samples, or whatever goes with one.
            shape: of an item's image.

        Raises:
            DataError: what `items` raises, after those that came before it.
        """
        batch: list[T] = []
        try:
            for item in items:
                if batch and shape(item) != shape(batch[0]):
                    yield batch
                    batch = []
                batch.append(item)
                if len(batch) == self.cfg.TEST.IMS_PER_BATCH:
                    yield batch
                    batch = []
        except DataError:
            if batch:
                yield batch
            raise
        if batch:
            yield batch

    @torch.no_grad()
    def detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Detections of each of `samples` as `GeneralizedRCNN.detect` gives them, in one forward pass; of a
        ProposalNetwork its proposals, whose scores are the probabilities of an object; none of a SemanticSegmentor."""
        return [found["instances"] for found in self.outputs(samples)]

    @torch.no_grad()
    def outputs(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """All that the model finds in each of `samples`, in one forward pass.

        Returns:
            `instances`, as of `detect`, and of a model that labels pixels `sem_seg` uint8 (height, width), the class of
            each, and `panoptic_seg`: int32 (height, width) and the infos of `combine_segments`; arrays on the CPU.
        """
        results = []
        for found in self.model.detect(samples):
            instances = _as_instances(found["proposals"]) if "proposals" in found else found.get("instances", _NONE)
            result = {"instances": instances}
            if "sem_seg" in found:  # the logits are hundreds of MB
                result["sem_seg"] = pixel_labels(found["sem_seg"]).to(torch.uint8).cpu().numpy()
            if "panoptic_seg" in found:
                segments, infos = found["panoptic_seg"]
                result["panoptic_seg"] = segments.cpu().numpy(), infos
            results.append(result)
        return results


_NONE = {
    "pred_boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "pred_classes": torch.zeros(0, dtype=torch.int64),
}  # fmt: skip


def _as_instances(proposals: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    boxes, logits = proposals["proposal_boxes"], proposals["objectness_logits"]
    classes = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return {"pred_boxes": boxes, "scores": logits.sigmoid(), "pred_classes": classes}


def _keypoints(cfg: CfgNode, categories: Sequence[Mapping[str, Any]]) -> tuple[list[str], tuple[tuple[int, int], ...]]:
    """The keypoints' names, and the pairs between which lines are drawn, as a checkpoint's categories say."""
    if not cfg.MODEL.KEYPOINT_ON:
        return [], ()
    count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    known = next((c for c in categories if len(c.get("keypoints") or ()) == count), {})
    bones = [bone for bone in known.get("skeleton") or () if all(1 <= at <= count for at in bone)]
    return list(known.get("keypoints") or map(str, range(count))), tuple((a - 1, b - 1) for a, b in bones)
