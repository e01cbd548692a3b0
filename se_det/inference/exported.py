"""An exported detector in the place of one of PyTorch's: `detect` of samples, and the config of what is around it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..config import get_cfg, merge_overrides
from ..config.provenance import key_source, user_keys
from ..config.resolution import Decision
from ..detection.architectures.panoptic_fpn import combine_outputs
from ..detection.rcnn import paste_detections
from ..detection.registry import facts_of
from ..errors import ConfigError, WeightsError
from .runtimes import Runtime, open_runtime, reason

logger = logging.getLogger(__name__)

# What may be chosen when a file is run; all else was chosen when it was exported.
FREE_KEYS = (
    "MODEL.WEIGHTS", "MODEL.DEVICE", "DATASETS.", "DATALOADER.", "OUTPUT_DIR", "SEED", "SOLVER.", "WRITERS",
    "TEST.IMS_PER_BATCH", "TEST.EVALUATORS", "TEST.BEST_METRIC", "TEST.EVAL_PERIOD", "TEST.EXPECTED_RESULTS",
)  # fmt: skip


class ExportedDetector(nn.Module):
    """A detector as META_ARCHITECTURES describes it, whose work a runtime does.

    Args:
        runtime: of a file with the metadata of an exported detector.
        name: of the file, for sentences.

    Attributes:
        metadata: of the file.
        prepared: whether it takes images that are resized already.

    Raises:
        WeightsError: the file is another network.
    """

    def __init__(self, runtime: Runtime, name: str) -> None:
        super().__init__()
        self.metadata = runtime.metadata
        if "outputs" not in self.metadata or "input" not in self.metadata:
            raise WeightsError(
                f"{name} is no whole detector of `se-det export`: it has no description of one. Export a checkpoint "
                "with `se-det export --weights W --output FILE`."
            )
        self.runtime, self.name = runtime, name
        self.outputs = list(self.metadata["outputs"])
        self.prepared = not self.metadata["input"]["preprocessing"]
        self.device = torch.device("cpu")

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What `detect` gives, with masks in the image, see `GeneralizedRCNN.forward`."""
        pasted = []
        for found in self.detect(samples):
            if "instances" in found:
                found = {**found, "instances": paste_detections(found["instances"])}
            pasted.append(found)
        return pasted

    def inference_parts(self) -> list[nn.Module]:
        """None: the file is as it is."""
        return []

    def detect(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the `detect` of the exported model's meta-architecture gives; but `sem_seg` is uint8 (height, width),
        the class of each pixel.

        Args:
            samples: `image` uint8 (3, H, W) as `input_decisions` say, optionally `height` and `width`.

        Raises:
            WeightsError: the runtime fails on them.
        """
        inputs, wanted = self.inputs(samples)
        try:
            outputs = self.runtime.run(inputs)
        except Exception as error:  # of many kinds, all the runtime's own
            batch, height, width = inputs[0].shape[0], *wanted.max(0).tolist()
            raise WeightsError(
                f"{self.name} does not run in {self.runtime.description} on {batch} images of up to {height} x {width} "
                f"px: {reason(error)}. Try fewer at once (TEST.IMS_PER_BATCH=1), or export the checkpoint again."
            ) from error
        found = dict(zip(self.outputs, outputs))
        return [self._outputs(found, n, tuple(map(int, size))) for n, size in enumerate(wanted)]

    def inputs(self, samples: Sequence[Mapping[str, Any]]) -> tuple[list[np.ndarray], np.ndarray]:
        """What the runtime is given for samples, and the sizes int64 (N, 2) that detections come back in."""
        images = [np.asarray(sample["image"]) for sample in samples]
        own = np.array([image.shape[1:] for image in images], np.int64)
        wanted = np.array([[s.get("height", h), s.get("width", w)] for s, (h, w) in zip(samples, own)], np.int64)
        batch = np.zeros((len(images), 3, *own.max(0)), np.uint8)
        for row, image, (height, width) in zip(batch, images, own):
            row[:, :height, :width] = image
        if self.prepared:
            return [batch.astype(np.float32), own, (wanted / own).astype(np.float32)], wanted
        return [np.ascontiguousarray(batch.transpose(0, 2, 3, 1)), own], wanted

    def _outputs(self, found: Mapping[str, np.ndarray], number: int, size: tuple[int, int]) -> dict[str, Any]:
        """Of one image all that PyTorch's model would give; classes of pixels in the place of their logits."""
        result: dict[str, Any] = {}
        if "objectness_logits" in found:
            instances = self._instances(found, number, size)
            logits = torch.from_numpy(np.array(found["objectness_logits"][number, : len(instances["scores"])]))
            return {"proposals": {"proposal_boxes": instances["pred_boxes"], "objectness_logits": logits}}
        if "counts" in found:
            result["instances"] = self._instances(found, number, size)
        if "sem_seg" in found:
            labels = np.array(found["sem_seg"][number, : size[0], : size[1]])
            result["sem_seg"] = torch.from_numpy(labels)
        if "combine" in self.metadata:
            labels = result["sem_seg"].long()
            result["panoptic_seg"] = combine_outputs(result["instances"], labels, **self.metadata["combine"])
        return result

    def _instances(self, found: Mapping[str, np.ndarray], number: int, size: tuple[int, int]) -> dict[str, Any]:
        count = int(found["counts"][number])
        names = {"boxes": "pred_boxes", "scores": "scores", "classes": "pred_classes", "masks": "box_masks",
                 "keypoints": "pred_keypoints"}  # fmt: skip
        instances: dict[str, Any] = {
            names[name]: torch.from_numpy(np.array(values[number, :count]))
            for name, values in found.items()
            if name in names
        }
        instances["pred_classes"] = instances["pred_classes"].long()
        if "box_masks" in instances:
            instances["image_size"] = size
        return instances


def open_exported(path: str | Path, device: str = "cpu") -> ExportedDetector:
    """Load an exported detector, and log what runs it.

    Raises:
        WeightsError: see `open_runtime` and `ExportedDetector`.
    """
    model = ExportedDetector(open_runtime(path, device), str(path))
    logger.info("%s runs in %s (%s).", path, model.runtime.description, model.metadata.get("precision", "float32"))
    return model


def input_decisions(cfg: CfgNode, metadata: Mapping[str, Any]) -> list[Decision]:
    """What an exported detector needs of a config: its kind, images as it takes them, its classes, its number of
    detections.

    And the batch that it was evaluated in, which counts under MODEL.GATE.PADDING keep, unless the user set one.
    """
    given = metadata["input"]
    values = {
        "INPUT.FORMAT": given["format"],
        "INPUT.MIN_SIZE_TEST": 0 if given["preprocessing"] else given["min_size"],
        "INPUT.MAX_SIZE_TEST": given["max_size"],
        "MODEL.META_ARCHITECTURE": metadata["architecture"],
        **dict.fromkeys(facts_of(metadata["architecture"]).class_keys, len(metadata["classes"])),
        "MODEL.MASK_ON": "masks" in metadata["outputs"],
    }
    if "counts" in metadata["outputs"] and "objectness_logits" not in metadata["outputs"]:
        values["TEST.DETECTIONS_PER_IMAGE"] = metadata["max_detections"]
    if "keypoints" in metadata:
        values["MODEL.KEYPOINT_ON"] = True
        values["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"] = len(metadata["keypoints"]["names"])
    if "pixel_classes" in metadata:
        values["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = len(metadata["pixel_classes"])
        values["MODEL.SEM_SEG_HEAD.IGNORE_VALUE"] = metadata["ignore_value"]
    if key_source(cfg, "TEST.IMS_PER_BATCH") is None and "images_per_batch" in metadata:
        values["TEST.IMS_PER_BATCH"] = metadata["images_per_batch"]
    return [Decision(key, value, cfg.MODEL.WEIGHTS, "as it was exported") for key, value in values.items()]


def config_of_exported(path: str | Path, overrides: Sequence[Any] = ()) -> CfgNode:
    """The defaults with MODEL.WEIGHTS this file.

    Args:
        overrides: `[key, value, ...]`.

    Raises:
        ConfigError: they set what the file has settled.
    """
    cfg = get_cfg()
    merge_overrides(cfg, ["MODEL.WEIGHTS", str(path), *overrides])
    check_exported_keys(cfg)
    return cfg


def check_exported_keys(cfg: CfgNode) -> None:
    """Refuse keys of the command line that an exported file does not follow.

    Raises:
        ConfigError: naming the key.
    """
    for key, source in user_keys(cfg).items():
        if source == "the command line" and not key.startswith(FREE_KEYS):
            raise ConfigError(
                f"{key} was settled when {cfg.MODEL.WEIGHTS} was exported: export the checkpoint again with {key}=..., "
                "or leave it out."
            )


def config_hash(cfg: CfgNode) -> str:
    """Of all keys but those that name places and devices."""
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.WEIGHTS, plain.MODEL.DEVICE, plain.OUTPUT_DIR = "", "", ""
    return hashlib.sha256(json.dumps(plain.dump()).encode()).hexdigest()[:16]
