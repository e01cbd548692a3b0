"""From an image file to detections in one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode

from ..data.images import FORMATS, read_image
from ..data.transforms import resize_image, short_side_size, to_tensor
from ..detection import build_detector
from ..detection.inference import check_precision, prepare_for_inference
from ..device import pick_device
from ..errors import ConfigError, DataError
from ..weights import load_weights, settle_weights


class Predictor:
    """A detector that takes pictures.

    Args:
        cfg: the config the weights were trained with.
        weights: a checkpoint; None takes cfg.MODEL.WEIGHTS.
        class_names: names of the classes in order; None takes those kept in the checkpoint, else their numbers.

    Raises:
        ConfigError: no weights were given, or the config contradicts the one they were trained with.
        WeightsError: the weights do not fit the config.
    """

    def __init__(
        self, cfg: CfgNode, weights: str | Path | None = None, *, class_names: list[str] | None = None
    ) -> None:  # fmt: skip
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.WEIGHTS = str(weights or cfg.MODEL.WEIGHTS)
        file = settle_weights(cfg, trained=True)
        if file is None:
            raise ConfigError("No weights were given: pass a checkpoint, or set MODEL.WEIGHTS.")
        categories = file.extra.get("categories") or []
        if categories:
            cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(categories)
        if cfg.INPUT.FORMAT not in FORMATS:
            raise ConfigError(f"INPUT.FORMAT '{cfg.INPUT.FORMAT}' is unknown: use {' or '.join(FORMATS)}.")
        self.cfg = cfg
        self.reverse_channels = cfg.INPUT.FORMAT == "RGB"
        check_precision(cfg.TEST.PRECISION)
        model = build_detector(cfg)
        load_weights(model, file, whole=True)
        self.model = prepare_for_inference(model.to(pick_device(cfg.MODEL.DEVICE)), precision=cfg.TEST.PRECISION)
        count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        self.category_ids: list[int] = [int(c["id"]) for c in categories] or list(range(count))
        self.class_names: list[str] = (
            class_names or [str(c["name"]) for c in categories] or list(map(str, range(count)))
        )
        if len(self.class_names) != count:
            raise ConfigError(f"{len(self.class_names)} class names were given for {count} classes.")

    def __call__(self, image: str | Path | np.ndarray) -> dict[str, np.ndarray]:
        """Detect.

        Args:
            image: a file, or pixels (height, width, 3) uint8 in the order BGR, as OpenCV reads them.

        Returns:
            `boxes` float32 (n, 4) XYXY px, `scores` (n,) best first, `classes` int64 (n,) and, with a mask head,
            `masks` bool (n, height, width), all in the image's own size.

        Raises:
            DataError: the file cannot be read as an image.
        """
        found = self.detect(read_image(image) if isinstance(image, (str, Path)) else image)
        return {name.removeprefix("pred_"): value.cpu().numpy() for name, value in found.items()}

    @torch.no_grad()
    def detect(self, pixels: np.ndarray) -> dict[str, torch.Tensor]:
        """Detections of one image as the detector gives them: `pred_boxes`, `scores`, `pred_classes`, `pred_masks`.

        Args:
            pixels: (height, width, 3) uint8, BGR.

        Raises:
            DataError: `pixels` are not such an image.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise DataError(
                f"An image must be (height, width, 3) of uint8 in the order BGR, got {pixels.shape} of {pixels.dtype}."
            )
        height, width = pixels.shape[:2]
        if self.reverse_channels:
            pixels = pixels[:, :, ::-1]
        size = short_side_size(height, width, self.cfg.INPUT.MIN_SIZE_TEST, self.cfg.INPUT.MAX_SIZE_TEST)
        tensor = to_tensor(resize_image(pixels, *size, method=self.cfg.INPUT.RESIZE))
        return self.model([{"image": tensor, "height": height, "width": width}])[0]["instances"]
