"""The zoo: one entry per public weight file, read from `model_zoo/*.yaml`."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..config.loading import read_yaml
from ..errors import ConfigError, WeightsError, suggestion
from ..packaged import packaged_folder
from .detector_entries import read_detectors
from .entries import ClassifierEntry, DetectorEntry, Entry, Report
from .families import FAMILIES, WeightConventions

SCHEME = "zoo://"
# What an entry may leave to the head of its file.
SHARED = ("source", "license", "family", "input", "stem_pool", "stride_in_1x1", "branch_relu", "note")


def list_weights(pattern: str = "*") -> list[str]:
    """Names of the entries that match a shell pattern: classifiers, such as "se_resnet50.*", and trained detectors,
    such as "mask_rcnn_*"."""
    return fnmatch.filter(_entries(), pattern)


def classifier_entries(pattern: str = "*") -> list[ClassifierEntry]:
    """The classifiers whose names match a shell pattern."""
    return [entry for entry in map(get_entry, list_weights(pattern)) if isinstance(entry, ClassifierEntry)]


def detector_entries(pattern: str = "*") -> list[DetectorEntry]:
    """The trained detectors whose names match a shell pattern."""
    return [entry for entry in map(get_entry, list_weights(pattern)) if isinstance(entry, DetectorEntry)]


def get_entry(name: str) -> Entry:
    """The entry of a name, with or without `zoo://`; a detector's config's path in Detectron2 is a name, too.

    Raises:
        WeightsError: there is none; the sentence names the nearest.
    """
    name = name.removeprefix(SCHEME)
    entries = _entries()
    if name in entries:
        return entries[name]
    path = name.removesuffix(".yaml").removesuffix(".py")
    for entry in entries.values():
        if isinstance(entry, DetectorEntry) and entry.path == path:
            return entry
    same = [entry.name for entry in entries.values() if getattr(entry, "architecture", None) == name]
    hint = f" For {name} there are {', '.join(same)}." if same else suggestion(name, entries)
    raise WeightsError(f"There is no entry '{name}' in the zoo (MODEL.WEIGHTS).{hint} list_weights() lists all.")


def entry_of_file(path: Path) -> Entry | None:
    """The entry whose file has this name, where the name has the hash in it and so is no other file's."""
    for entry in _entries().values():
        if entry.hash_in_name and entry.file_name == path.name:
            return entry
    return None


@functools.cache
def _entries() -> dict[str, Entry]:
    return read_entries(packaged_folder("model_zoo"))


def read_entries(folder: Path) -> dict[str, Entry]:
    """All entries in a folder of YAML files, by name.

    Raises:
        ConfigError: a file is not what it should be; the sentence names file, entry and field.
    """
    entries: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.yaml")):
        tree = read_yaml(path)
        if "parts" in tree:
            found = read_detectors(path, tree)
            double = next((name for name in found if name in entries), None)
            if double:
                raise ConfigError(f"{path}: there is another entry '{double}'.")
            entries |= found
            continue
        listed = tree.pop("entries", None)
        if not isinstance(listed, dict) or set(tree) - set(SHARED):
            raise ConfigError(f"{path} must hold 'entries' and, for all of them, any of {', '.join(SHARED)}.")
        for name, values in listed.items():
            if name in entries:
                raise ConfigError(f"{path}: there is another entry '{name}'.")
            entries[name] = _entry(name, {**tree, **(values or {})}, f"{path}: {name}")
    if not entries:
        raise ConfigError(f"There are no weight entries in {folder}: install se_det again.")
    return entries


def _entry(name: str, values: dict[str, Any], where: str) -> ClassifierEntry:
    known = ({field.name for field in fields(ClassifierEntry)} | set(SHARED)) - {"name", "facts", "md5"}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: there is no field '{key}'.{suggestion(key, known)}")
    published = values.get("url") is not None
    required = ["architecture", "source", "license", *(["family", "input", "reports"] if published else ["start_from"])]
    for key in required:
        if key not in values:
            raise ConfigError(f"{where}: the field '{key}' is missing.")
    sha256, family = values.get("sha256"), values.get("family", "none")
    if published and not re.fullmatch(r"https?://\S+/[\w.+-]+", values["url"]):
        raise ConfigError(f"{where}: url '{values['url']}' must be http(s) and end in a file name.")
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{8,64}", sha256)):
        raise ConfigError(f"{where}: sha256 must be 8 to 64 hexadecimal digits in quotes, got {sha256!r}.")
    if published and family not in FAMILIES:
        raise ConfigError(f"{where}: family '{family}' is unknown: use one of {', '.join(FAMILIES)}.")
    return ClassifierEntry(
        name=name,
        url=values.get("url"),
        sha256=sha256,
        size_mib=values.get("size_mib"),
        family=family,
        architecture=values["architecture"],
        facts=_facts(values, where) if published else None,
        reports=tuple(_report(report, where) for report in values.get("reports", ())),
        source=values["source"],
        license=values["license"],
        start_from=tuple(values.get("start_from", ())),
        note=str(values.get("note", "")).strip(),
    )


def _facts(values: Mapping[str, Any], where: str) -> WeightConventions:
    given = values["input"]
    stride, pool, relu = values.get("stride_in_1x1"), values.get("stem_pool"), values.get("branch_relu")
    if not isinstance(given, Mapping) or set(given) != {"format", "mean", "std"}:
        raise ConfigError(f"{where}: input must hold format, mean and std.")
    if given["format"] not in ("RGB", "BGR"):
        raise ConfigError(f"{where}: input.format must be RGB or BGR, got {given['format']}.")
    for key in ("mean", "std"):
        numbers = given[key]
        if not isinstance(numbers, list) or len(numbers) != 3 or not all(type(x) in (int, float) for x in numbers):
            raise ConfigError(f"{where}: input.{key} must be three numbers, got {numbers}.")
    if any(value not in (True, False, None) for value in (stride, relu)) or pool not in ("pad1", "ceil", None):
        raise ConfigError(
            f"{where}: stride_in_1x1 and branch_relu must be true, false or null, and stem_pool pad1, ceil or null."
        )
    return WeightConventions(
        stride_in_1x1=stride,
        stem_pool=pool,
        branch_relu=relu,
        input_format=given["format"],
        pixel_mean=tuple(map(float, given["mean"])),
        pixel_std=tuple(map(float, given["std"])),
    )


def _report(values: Any, where: str) -> Report:
    try:
        report = Report(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: a report must hold top1, top5, crop and source, got {values}.") from error
    if not (0 < report.top1 < report.top5 < 100):
        raise ConfigError(f"{where}: a report's top1 and top5 are percent that are right, got {values}.")
    return report
