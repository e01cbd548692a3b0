"""A classifier with its weights in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..backbones import catalog
from ..backbones.resnet import ResNet
from ..backbones.timm_trunk import PREFIX
from ..errors import WeightsError
from .loading import load_weights
from .source import open_weights
from .zoo import SCHEME, ClassifierEntry, list_weights


def create_model(name: str, *, num_classes: int = 1000, weights: str | Path | None = None, **options: Any) -> nn.Module:
    """A classifier; with `weights`, built as they need it and loaded.

    Args:
        name: such as "se_resnet50"; see `list_models`.
        num_classes: another number than the file's starts the last layer afresh.
        weights: an entry of the zoo, with or without `zoo://`; a URL or a path. None gives random values.
        options: see `create_backbone`; what the weights need of them is set unless it is given.

    Returns:
        the classifier in training mode: (N, 3, H, W) to (N, num_classes).

    Raises:
        ConfigError: the name or an option's value is unknown.
        WeightsError: the file cannot be had or does not fit; the entry is another network's; a given option would
            make its results wrong.
    """
    if weights is None:
        return catalog.create_model(name, num_classes=num_classes, **options)
    of_timm = name.startswith(PREFIX)
    if not of_timm:
        catalog.parse_name(name)
    source = str(weights)
    if source in list_weights():
        source = SCHEME + source
    file, entry = open_weights(source, foreign=of_timm)
    if isinstance(entry, ClassifierEntry) and entry.architecture != name:
        raise WeightsError(f"The weights of {SCHEME}{entry.name} are a {entry.architecture}'s, not a {name}'s.")
    if not of_timm and catalog.HOSTS[catalog.parse_name(name)[1]].build is ResNet:
        needs = {fact: getattr(file.facts, fact) for fact in ("stride_in_1x1", "stem_pool", "branch_relu")}
        options = {**{fact: value for fact, value in needs.items() if value is not None}, **options}
    model = catalog.create_model(name, num_classes=num_classes, **options)
    load_weights(model, file)
    return model
