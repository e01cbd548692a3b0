"""What an image goes through before a classifier in evaluation, and what a checkpoint tells a detector of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from fvcore.common.config import CfgNode

from ..backbones.catalog import parse_name
from ..data.images import FORMATS
from ..errors import ConfigError
from .data.transforms import normalize, resize_center_crop


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize, centre crop, normalise.

    Attributes:
        size: side of the crop, px.
        crop_ratio: `size` as a share of the resized image's short side.
        format: RGB or BGR.
        mean, std: in that order, on the 0..255 scale.

    Raises:
        ConfigError: a value that cannot work.
    """

    size: int = 224
    crop_ratio: float = 0.875
    format: str = "RGB"
    mean: tuple[float, float, float] = (123.675, 116.280, 103.530)
    std: tuple[float, float, float] = (58.395, 57.120, 57.375)

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ConfigError(f"TEST.IMAGE_SIZE must be at least 32, got {self.size}.")
        if not 0 < self.crop_ratio <= 1:
            raise ConfigError(f"TEST.CROP_RATIO must be above 0 and at most 1, got {self.crop_ratio}.")
        if self.format not in FORMATS:
            raise ConfigError(f"INPUT.FORMAT '{self.format}' is unknown: use one of {', '.join(FORMATS)}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                f"MODEL.PIXEL_MEAN {list(self.mean)} and MODEL.PIXEL_STD {list(self.std)} must be three numbers each, "
                "the latter above 0."
            )

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 RGB (N, 3, H, W) to what the network takes."""
        mean, std = (torch.tensor(v, dtype=torch.float32, device=images.device) for v in (self.mean, self.std))
        return normalize(images, mean, std, self.format)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 RGB (3, H, W) to (1, 3, size, size)."""
        return self.normalize(resize_center_crop(image, self.size, self.crop_ratio)[None])


def preprocessing(cfg: CfgNode) -> Preprocessing:
    """That of a recipe's evaluation."""
    return Preprocessing(
        size=cfg.TEST.IMAGE_SIZE or cfg.INPUT.IMAGE_SIZE,
        crop_ratio=cfg.TEST.CROP_RATIO,
        format=cfg.INPUT.FORMAT,
        mean=tuple(cfg.MODEL.PIXEL_MEAN),
        std=tuple(cfg.MODEL.PIXEL_STD),
    )


def architecture(cfg: CfgNode) -> dict[str, Any]:
    """What a checkpoint says of its network and of the images it wants, besides its config.

    A detector that starts from it follows the config, whose keys have the names of the detector's.
    """
    view = preprocessing(cfg)
    return {
        "name": cfg.MODEL.NAME,
        "gate": parse_name(cfg.MODEL.NAME)[0],
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "options": model_options(cfg),
        "input_format": view.format,
        "pixel_mean": list(view.mean),
        "pixel_std": list(view.std),
        "image_size": view.size,
        "crop_ratio": view.crop_ratio,
    }


def model_options(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of `create_model` besides the name that differ from its own defaults."""
    resnets, gate = cfg.MODEL.RESNETS, cfg.MODEL.GATE
    given = {
        "norm": (resnets.NORM, "BN"),
        "stride_in_1x1": (resnets.STRIDE_IN_1X1, False),
        "stem_pool": (resnets.STEM_POOL, "pad1"),
        "stem_channels": (resnets.STEM_OUT_CHANNELS, 0),
        "res2_channels": (resnets.RES2_OUT_CHANNELS, 0),
        "reduction": (gate.REDUCTION, 16),
        "gate_bias": (gate.BIAS, True),
        "gate_norm": (gate.NORM, ""),
        "gate_placement": (gate.PLACEMENT, "standard"),
        "gate_stages": (_plain(gate.STAGES), ["res2", "res3", "res4", "res5"]),
    }
    return {name: value for name, (value, default) in given.items() if value != default}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
