"""What a weight file says of itself, held to its form before anybody relies on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config.loading import parse_yaml
from ..errors import ConfigError, WeightsError

MAX_CATEGORIES = 10**6  # classes, and px of a side


def validate_metadata(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """`metadata` without what other programs mean something else by.

    Raises:
        WeightsError: the file is one of ours, by its `engine` or `family`, and what it says has another form than ours.
    """
    wrong = [key for key, fits in VALIDATORS.items() if metadata.get(key) is not None and not fits(metadata[key])]
    if wrong and ("engine" in metadata or "family" in metadata):
        raise WeightsError(f"{path} is damaged: what it says under '{wrong[0]}' is not what se_det writes there.")
    return {key: value for key, value in metadata.items() if key not in wrong}


def is_categories(value: Any) -> bool:
    """Whether it is `[{"id": ..., "name": ...}, ...]` with ids of their own."""
    return (
        isinstance(value, list)
        and all(isinstance(c, Mapping) and type(c.get("id")) is int and isinstance(c.get("name"), str) for c in value)
        and all(map(_are_keypoints, value))
        and len({c["id"] for c in value}) == len(value) <= MAX_CATEGORIES
    )


def _are_keypoints(category: Mapping[str, Any]) -> bool:
    """Whether a category's keypoints and skeleton, if it has any, are as COCO's."""
    names, bones = category.get("keypoints", []), category.get("skeleton", [])
    return (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(bones, list)
        and all(isinstance(bone, list) and list(map(type, bone)) == [int, int] for bone in bones)
    )


def is_config(value: Any) -> bool:
    """Whether it is a config as text."""
    if not isinstance(value, str):
        return False
    try:
        return bool(parse_yaml(value, "config"))
    except ConfigError:
        return False


def _is_architecture(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("name"), str)
        and _is_count(value.get("num_classes"))
        and isinstance(value.get("options"), Mapping)
        and all(isinstance(key, str) for key in value["options"])
        and _is_count(value.get("image_size"))
        and _is_number(value.get("crop_ratio"))
        and isinstance(value.get("input_format"), str)
        and _is_triple(value.get("pixel_mean"))
        and _is_triple(value.get("pixel_std"))
    )


def _is_conventions(value: Any) -> bool:
    """Each is unknown, or of its kind (see `WeightConventions`)."""
    fits: dict[str, Callable[[Any], bool]] = {
        "stride_in_1x1": lambda v: isinstance(v, bool), "branch_relu": lambda v: isinstance(v, bool),
        "stem_pool": lambda v: v in ("pad1", "ceil"), "input_format": lambda v: v in ("BGR", "RGB"),
        "pixel_mean": _is_triple, "pixel_std": _is_triple, "class_order": lambda v: v in ("standard", "caffe"),
    }  # fmt: skip
    return isinstance(value, Mapping) and all(value.get(key) is None or fit(value[key]) for key, fit in fits.items())


def _is_thresholds(value: Any) -> bool:
    """Whether it is a score, or None, by the class's name."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and (score is None or (_is_number(score) and 0 <= score <= 1))
        for name, score in value.items()
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_CATEGORIES


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_triple(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_number, value))


VALIDATORS: dict[str, Callable[[Any], bool]] = {
    "config": is_config,
    "categories": is_categories,
    "pixel_classes": is_categories,
    "iteration": lambda value: type(value) is int and value >= 0,
    "engine": lambda value: isinstance(value, str),
    "architecture": _is_architecture,
    "facts": _is_conventions,
    "family": lambda value: isinstance(value, str),
    "thresholds": _is_thresholds,
}
