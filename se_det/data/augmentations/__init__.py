"""Augmentations: each a class in a file of its own, found by name in INPUT.AUGMENTATIONS. See `protocol`."""

from . import flip, resize  # register theirs
from .build import build_augmentations, resize_and_flip
from .protocol import AUGMENTATIONS, Augmentation, Masks, Sample, Transform

__all__ = [
    "AUGMENTATIONS", "Augmentation", "Masks", "Sample", "Transform", "build_augmentations", "flip", "resize",
    "resize_and_flip",
]  # fmt: skip
