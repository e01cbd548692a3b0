"""The JSON of a data set, read as far as it can be: what is no list and no object is noted and left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..coco_json import PackedPolygons, json_type, load_json, shorten
from .findings import Findings

PARTS = ("images", "annotations", "categories")


@dataclass
class Document:
    """What a COCO JSON holds. Entries are objects; positions count the objects of a list.

    Attributes:
        polygons: the polygons of all annotations (`PackedPolygons`).
        rest: every other key of the file, as it stands there.
    """

    path: Path
    images: list[dict[Any, Any]] = field(default_factory=list)
    annotations: list[dict[Any, Any]] = field(default_factory=list)
    categories: list[dict[Any, Any]] = field(default_factory=list)
    polygons: PackedPolygons = field(default_factory=PackedPolygons)
    rest: dict[str, Any] = field(default_factory=dict)


def read_document(path: Path, findings: Findings) -> Document:
    """Read a COCO JSON; a file that is none gives an empty document and a finding."""
    document = Document(path)
    try:
        content = load_json(path, document.polygons)
    except DataError as error:
        findings.add("format", str(error))
        return document
    if not isinstance(content, dict):
        hint = " COCO results (detections) are such a list; give the ground truth." if isinstance(content, list) else ""
        findings.add(
            "format", f"{path} holds a JSON {json_type(content)}, not an object as COCO annotations are.{hint}"
        )
        return document
    for part in PARTS:
        values = content.pop(part, None)
        if not isinstance(values, list):
            what = "is missing" if values is None else f"is a JSON {json_type(values)}, not a list"
            findings.add("format", f"'{part}' {what}")
            continue
        if set(map(type, values)) - {dict}:
            for at, value in enumerate(values):
                if not isinstance(value, dict):
                    findings.add("format", f"entry {at} of '{part}' is {shorten(value)}, not an object")
            values = [value for value in values if isinstance(value, dict)]
        setattr(document, part, values)
        if not values and part != "annotations":
            findings.add("format", f"'{part}' is empty")
    document.rest = content
    return document
