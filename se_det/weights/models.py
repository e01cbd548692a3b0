"""A classifier with its weights in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..backbones import catalog
from ..errors import WeightsError
from .conventions import check_network
from .loading import load_weights
from .reading import read_weights
from .source import resolve_weights
from .zoo import SCHEME, list_weights


def create_model(name: str, *, num_classes: int = 1000, weights: str | Path | None = None, **options: Any) -> nn.Module:
    """A classifier; with `weights`, built as they need it and loaded.

    Args:
        name: such as "se_resnet50"; see `list_models`.
        num_classes: another number than the file's starts the last layer afresh.
        weights: an entry of the zoo, with or without `zoo://`; a URL or a path. None gives random values.
        options: see `create_backbone`; an entry sets `stride_in_1x1` and `stem_pool` unless they are given.

    Returns:
        the classifier in training mode: (N, 3, H, W) to (N, num_classes).

    Raises:
        ConfigError: the name or an option's value is unknown.
        WeightsError: the file cannot be had or does not fit; the entry is another network's; a given option would
            make its results wrong.
    """
    if weights is None:
        return catalog.create_model(name, num_classes=num_classes, **options)
    catalog.parse_name(name)
    source = str(weights)
    if source in list_weights():
        source = SCHEME + source
    path, entry = resolve_weights(source)
    if entry is not None and entry.conventions is not None:
        if entry.architecture != name:
            raise WeightsError(f"The weights of {SCHEME}{entry.name} are a {entry.architecture}'s, not a {name}'s.")
        conventions = entry.conventions
        needs = {"stride_in_1x1": conventions.stride_in_1x1, "stem_pool": conventions.stem_pool}
        options = {**{key: value for key, value in needs.items() if value is not None}, **options}
    model = catalog.create_model(name, num_classes=num_classes, **options)
    if entry is not None and entry.conventions is not None:
        check_network(model, entry.conventions, f"{SCHEME}{entry.name}")
    load_weights(model, read_weights(path))
    return model
