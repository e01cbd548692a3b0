"""Augmentations: each a class in a file of its own, found by name in INPUT.AUGMENTATIONS. See `protocol`."""

from . import (  # register theirs
    crop,
    fixed_size_crop,
    flip,
    large_scale_jitter,
    resize,
    resize_scale,
)
from .build import build_augmentations, resize_and_flip
from .protocol import AUGMENTATIONS, Augmentation, Masks, Sample, Transform

__all__ = [
    "AUGMENTATIONS", "Augmentation", "Masks", "Sample", "Transform", "build_augmentations", "crop", "fixed_size_crop",
    "flip", "large_scale_jitter", "resize", "resize_and_flip", "resize_scale",
]  # fmt: skip
