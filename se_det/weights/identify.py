"""What a weight file is: its family, its tensors under our names, and the facts that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from ..config.loading import dump_keys
from ..errors import WeightsError
from ..packaged import packaged_folder
from .class_lists import read_categories
from .families import FAMILIES, SE_DET, Family, WeightConventions, detect_family, family_named
from .families.class_order import read_class_order
from .families.conventions import is_grouped
from .families.conversion import to_ours
from .families.pytorch import MODERN
from .reading import WeightFile, read_weights

HEAD = ("linear.weight", "linear.bias")


def identify(source: str | Path | WeightFile, family: str = "", class_order: str | Path | None = None) -> WeightFile:
    """Read a file, find its family by its keys, and give its tensors our names.

    Args:
        family: the family it is of; "" finds out.
        class_order: a file with the order of its classes (see `read_class_order`), for families whose order is not
            the standard one. Without it, such a file's classifier is left out.

    Raises:
        WeightsError: the file cannot be read, is of another family than `family`, or of several; `class_order` is not
            one for its classifier.
    """
    file = source if isinstance(source, WeightFile) else read_weights(source)
    if file.family:
        return file
    kind = _family(file, family)
    converted = to_ours(str(file.path), file.tensors, kind) if kind.rules else None
    tensors = converted.tensors if converted else file.tensors
    extra = file.extra
    if kind.detector is not None and "config" not in extra:
        try:
            config = kind.detector(tensors)
        except WeightsError as error:
            raise WeightsError(f"{file.path}: {error}") from error
        extra = {**extra, "config": dump_keys(config)}
        classes = kind.classes(file.tensors)
        if classes:
            extra["categories"] = list(read_categories(packaged_folder("model_zoo"), classes))
    file = replace(
        file,
        tensors=tensors,
        extra=extra,
        family=kind.name,
        facts=_facts(file, kind, tensors),
        reshaped=tuple(converted.reshaped) if converted else (),
        unknown_parts=tuple(converted.unknown) if converted else (),
    )
    return _in_standard_order(file, class_order)


def read_foreign(source: str | Path) -> WeightFile:
    """Read a file for a network of another library's, which has the names that the file has.

    Raises:
        WeightsError: the file cannot be read.
    """
    file = read_weights(source)
    return replace(file, family=SE_DET.name, facts=_facts_of_config(file.extra.get("config")))


def _family(file: WeightFile, name: str) -> Family:
    pickled = file.path.suffix == ".pkl" or "__author__" in file.extra or "stem.fc.weight" in file.tensors
    metadata = FAMILIES.get(str(file.extra.get("family")))
    if not name and metadata is not None and metadata.matches(file.tensors):
        return metadata  # it was converted here
    if not name:
        # Names that are nobody's may still be those of a network of ours without a stem; loading tells.
        return detect_family(str(file.path), file.tensors, pickled=pickled) or SE_DET
    named = family_named(name)
    if named.matches(file.tensors):
        return named
    found = [f for f in FAMILIES.values() if f.matches(file.tensors)]
    for other in found:
        if other.name in named.like:
            return other
    its = f"its keys are those of {' or '.join(f.name for f in found)}" if found else "it has none of its keys"
    raise WeightsError(f"{file.path} is not of the family {name} ({named.about}): {its}.")


def _facts(file: WeightFile, family: Family, tensors: Mapping[str, torch.Tensor]) -> WeightConventions:
    if isinstance(file.extra.get("facts"), Mapping):
        return WeightConventions.from_dict(file.extra["facts"])
    if family is SE_DET:
        return _facts_of_config(file.extra.get("config"))
    if file.extra.get("__author__") == "torchvision":
        return MODERN
    return family.facts(is_grouped(tensors))


def _facts_of_config(text: Any) -> WeightConventions:
    """The facts of a checkpoint of ours, which keeps the config it was trained with."""
    try:
        config = yaml.safe_load(text) if isinstance(text, str) else None
        model = config["MODEL"]
        return WeightConventions(
            stride_in_1x1=bool(model["RESNETS"]["STRIDE_IN_1X1"]),
            stem_pool=str(model["RESNETS"]["STEM_POOL"]),
            branch_relu=bool(model["RESNETS"].get("BRANCH_RELU", False)),
            input_format=str(config["INPUT"]["FORMAT"]),
            pixel_mean=tuple(float(v) for v in model["PIXEL_MEAN"]),
            pixel_std=tuple(float(v) for v in model["PIXEL_STD"]),
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return WeightConventions()


def _in_standard_order(file: WeightFile, class_order: str | Path | None) -> WeightFile:
    if file.facts.class_order != "caffe":
        if class_order is not None:
            raise WeightsError(
                f"{file.path} ({file.family}) has its classes in the standard order, or in an order of its own data: "
                "give no class order."
            )
        return file
    weight = file.tensors.get(HEAD[0])
    if weight is None:
        return file
    if class_order is None:
        tensors = {name: tensor for name, tensor in file.tensors.items() if name not in HEAD}
        return replace(file, tensors=tensors, unordered_classes=len(weight))
    order = read_class_order(class_order)
    if len(order) != len(weight):
        raise WeightsError(
            f"The class order {class_order} has {len(order)} classes, and the classifier of {file.path} {len(weight)}."
        )
    tensors = {name: tensor[order] if name in HEAD else tensor for name, tensor in file.tensors.items()}
    return replace(file, tensors=tensors, facts=replace(file.facts, class_order="standard"))
