"""Files of the zoo with trained detectors: each entry's config is put together of parts that its file names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.defaults import get_cfg
from ..config.loading import get_key
from ..errors import ConfigError, suggestion
from .class_lists import read_categories
from .conventions import KEYS
from .entries import DetectorEntry
from .families import FAMILIES, WeightConventions

HEAD = ("source", "license", "family", "url", "parts", "classes")  # of a file, beside its `entries`
FIELDS = ("file", "parts", "reported", "classes", "note")  # of an entry


def read_detectors(path: Path, tree: Mapping[str, Any]) -> dict[str, DetectorEntry]:
    """The entries of a file.

    Args:
        path: for sentences, and to find the lists of classes beside it.
        tree: what the file holds: `HEAD`, and `entries` of `FIELDS`.

    Raises:
        ConfigError: it is not what it should be; the sentence names file, entry and field.
    """
    missing = [key for key in HEAD if key not in tree]
    if missing or set(tree) - {*HEAD, "entries"}:
        raise ConfigError(f"{path} must hold {', '.join(HEAD)} and entries.")
    if tree["family"] not in FAMILIES:
        raise ConfigError(f"{path}: family '{tree['family']}' is unknown: use one of {', '.join(FAMILIES)}.")
    defaults = get_cfg()
    defaults = {key: get_key(defaults, key) for key in KEYS}
    return {name: _entry(name, values or {}, tree, defaults, path) for name, values in tree["entries"].items()}


def _entry(
    name: str, values: Mapping[str, Any], head: Mapping[str, Any], defaults: Mapping[str, Any], path: Path
) -> DetectorEntry:
    where = f"{path}: {name}"
    for key in values:
        if key not in FIELDS:
            raise ConfigError(f"{where}: there is no field '{key}'.{suggestion(key, FIELDS)}")
    for key in ("file", "parts", "reported"):
        if key not in values:
            raise ConfigError(f"{where}: the field '{key}' is missing.")
    file = re.fullmatch(r"((?:[\w.-]+/)*[\w.-]+)/\w+/[\w.-]+_([0-9a-f]{6})\.pkl", str(values["file"]))
    if file is None:
        raise ConfigError(f"{where}: file must be <config>/<number>/<name>_<6 digits of its md5>.pkl.")
    reported = values["reported"]
    if not isinstance(reported, Mapping) or not all(
        re.fullmatch(r"\w+/[\w@]+", str(key)) and type(x) in (int, float) and 0 < x < 100 for key, x in reported.items()
    ):
        raise ConfigError(f"{where}: reported must be percent by task/metric, got {reported}.")
    config: dict[str, Any] = {}
    for part in values["parts"]:
        if part not in head["parts"]:
            raise ConfigError(f"{where}: there is no part '{part}'.{suggestion(part, head['parts'])}")
        config |= head["parts"][part]
    classes = values.get("classes", head["classes"])
    return DetectorEntry(
        name=name,
        url=head["url"] + values["file"],
        md5=file[2],
        family=head["family"],
        facts=WeightConventions.from_dict({fact: config.get(key, defaults[key]) for key, fact in KEYS.items()}),
        source=head["source"],
        license=head["license"],
        note=str(values.get("note", "")).strip(),
        path=file[1],
        config=config,
        categories=read_categories(path.parent, classes) if classes else (),
        reported=dict(reported),
    )
