"""Using a pretrained classifier: its class for an image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..backbones.catalog import create_model
from ..backbones.classifier import Classifier
from ..config.paths import expand_path
from ..data.images import read_image
from ..data.pixels import check_pixels
from ..errors import ConfigError, WeightsError
from ..layers.fuse import fuse_for_inference
from ..weights import load_weights, read_weights
from ..weights.reading import WeightFile
from .preprocessing import Preprocessing


def load_classifier(path: str | Path) -> Classifier:
    """The network of a pretraining checkpoint, in evaluation mode, with `preprocessing` and `class_names`.

    Raises:
        WeightsError: the file cannot be read, or is of no pretraining run, so that nobody knows what images it wants.
    """
    file = read_weights(path)
    metadata = file.extra.get("architecture")
    if not isinstance(metadata, dict):
        raise WeightsError(
            f"{path} does not say of what network it is and what images it wants: only checkpoints of pretraining do. "
            "Build the model with create_model, load the weights, and give classify a preprocessing."
        )
    categories = file.extra.get("categories")
    if not categories or len(categories) != metadata["num_classes"]:
        raise WeightsError(f"{path} is damaged: it has not the names of its {metadata['num_classes']} classes.")
    model = _build(file, metadata)
    load_weights(model, file, strict=True)
    model.class_names = [str(c["name"]) for c in categories]
    return model.eval()


def _build(file: WeightFile, metadata: Mapping[str, Any]) -> Classifier:
    """The network that a file says it is of; first without memory, as a file may say anything."""
    try:
        with torch.device("meta"):
            size = sum(p.numel() for p in create_model(metadata["name"], num_classes=metadata["num_classes"],
                                                       **metadata["options"]).parameters())  # fmt: skip
        if size > sum(tensor.numel() for tensor in file.tensors.values()):
            raise ValueError(f"it would have {size} numbers, more than there are")
        model = create_model(metadata["name"], num_classes=metadata["num_classes"], **metadata["options"])
        model.preprocessing = Preprocessing(
            size=metadata["image_size"],
            crop_ratio=metadata["crop_ratio"],
            format=metadata["input_format"],
            mean=tuple(metadata["pixel_mean"]),
            std=tuple(metadata["pixel_std"]),
        )
    except (ConfigError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{file.path} is damaged: no network is as it says that its own is: {error}") from error
    return model


@torch.no_grad()
def classify(
    model: nn.Module | str | os.PathLike, image: str | os.PathLike | np.ndarray, *,
    preprocessing: Preprocessing | None = None, class_names: list[str] | None = None,
) -> tuple[str, float]:  # fmt: skip
    """The class of an image and its score, the softmax's probability.

    Args:
        model: of `load_classifier`, or the path of a pretraining checkpoint; or any classifier with `preprocessing`.
        image: a file, or uint8 (H, W, 3) in RGB.
        preprocessing: what the model wants; its own where it has one.
        class_names: of the model's outputs; its own, or their numbers.

    Raises:
        WeightsError: the model does not say what images it wants, and `preprocessing` is not given.
        DataError: the image cannot be read, or something else was given.
        ConfigError: `model` is neither a network nor a path, or `class_names` are not one for each of its outputs.
    """
    if not isinstance(model, nn.Module):
        if not isinstance(model, (str, os.PathLike)):
            raise ConfigError(
                "The model must be a network, or the path of a pretraining checkpoint, got "
                f"{'None' if model is None else f'a value of type {type(model).__name__}'}."
            )
        path = Path(expand_path(model, "The model"))
        model = _load_cached(str(path.resolve()), path.stat().st_mtime_ns) if path.is_file() else load_classifier(path)
    view = preprocessing or getattr(model, "preprocessing", None)
    if view is None:
        raise WeightsError(
            "This model does not say what images it wants: load it with load_classifier, or give a preprocessing."
        )
    names = class_names or getattr(model, "class_names", None)
    if isinstance(image, (str, os.PathLike)):
        image = read_image(expand_path(image, "The image"), "RGB")
    check_pixels(image, "RGB")
    tensor = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1)
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        scores = model(view(tensor.to(device)))[0].float().softmax(0)
    finally:
        model.train(was_training)
    if names and len(names) != len(scores):
        raise ConfigError(f"{len(names)} class names were given for {len(scores)} classes.")
    best = int(scores.argmax())
    return (names[best] if names else str(best)), float(scores[best])


@lru_cache(maxsize=1)
def _load_cached(path: str, changed: int) -> Classifier:
    """The last checkpoint asked for by its path, as long as its file does not change."""
    return fuse_for_inference(load_classifier(path))
