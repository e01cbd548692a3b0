"""Augmentations: each a class in a file of its own, found by name in INPUT.AUGMENTATIONS. See `protocol`."""

from . import (  # register theirs
    category_area_crop,
    copy_paste,
    crop,
    fixed_size_crop,
    flip,
    gaussian_blur,
    gaussian_noise,
    grayscale,
    intensity,
    jpeg,
    large_scale_jitter,
    min_iou_random_crop,
    mixup,
    mosaic,
    photometric_distort,
    quarter_turn,
    random_erasing,
    resize,
    resize_scale,
    rotation,
)
from .build import build_augmentations, resize_and_flip
from .protocol import AUGMENTATIONS, Augmentation, Masks, Sample, Transform

__all__ = [
    "AUGMENTATIONS", "Augmentation", "Masks", "Sample", "Transform", "build_augmentations",
    "category_area_crop", "copy_paste", "crop",
    "fixed_size_crop", "flip", "gaussian_blur", "gaussian_noise", "grayscale", "intensity", "jpeg",
    "large_scale_jitter", "min_iou_random_crop", "mixup", "mosaic", "photometric_distort", "quarter_turn",
    "random_erasing", "resize", "resize_and_flip", "resize_scale", "rotation",
]  # fmt: skip
