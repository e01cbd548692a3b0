"""Parsing a COCO JSON: its lists as Python objects, but polygons at once as arrays.

Of a large file nearly all is polygon vertices. As Python floats they would take several times the size of the file.
"""

from __future__ import annotations

import gc
import json
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import open_regular_file

PACKED = 0  # the key that a packed segmentation's number stands under; keys of JSON itself are strings


@dataclass
class PackedPolygons:
    """Polygons of many annotations one after another.

    Attributes:
        values: x, y, x, y, ... px.
        lengths: how many values each polygon has.
        counts: how many polygons each packed annotation has.
    """

    values: array = field(default_factory=lambda: array("d"))
    lengths: array = field(default_factory=lambda: array("q"))
    counts: array = field(default_factory=lambda: array("q"))

    def take(self, found: dict[str, Any]) -> dict[str, Any]:
        """Move the polygons of a JSON object here, when it has any that are lists of numbers."""
        segmentation = found.get("segmentation")
        if segmentation.__class__ is list and segmentation:
            values, lengths = self.values, []
            before = len(values)
            try:
                for polygon in segmentation:
                    start = len(values)
                    values.extend(polygon)
                    lengths.append(len(values) - start)
            except (TypeError, OverflowError):
                del values[before:]  # left in place: to be found and named with its annotation's id
                return found
            found["segmentation"] = None
            found[PACKED] = len(self.counts)
            self.lengths.extend(lengths)
            self.counts.append(len(lengths))
        return found


@dataclass
class CocoContent:
    """What a COCO JSON holds: lists of objects, nothing in them checked, polygons apart."""

    images: list[dict[Any, Any]]
    annotations: list[dict[Any, Any]]
    categories: list[dict[Any, Any]]
    polygons: PackedPolygons


def parse_coco(path: Path) -> CocoContent:
    """Parse a COCO annotation file. `take`n segmentations are None, with their number under the key `PACKED`.

    Raises:
        DataError: the file is missing or not JSON, or is not an object with images, annotations and categories.
    """
    polygons = PackedPolygons()
    content = load_json(path, polygons)
    if not isinstance(content, dict):
        hint = " COCO results (detections) are such a list; give the ground truth." if isinstance(content, list) else ""
        raise DataError(f"{path} holds a JSON {json_type(content)}, not an object as COCO annotations are.{hint}")
    lacking = [key for key in ("images", "annotations", "categories") if key not in content]
    if lacking:
        raise DataError(
            f"{path} is not in COCO's format: it has no {' and no '.join(repr(key) for key in lacking)}. Give a JSON "
            "object with the lists 'images', 'annotations' and 'categories'."
        )
    for key in ("images", "annotations", "categories"):
        values = content[key]
        if not isinstance(values, list):
            raise DataError(
                f"{path} is not in COCO's format: '{key}' is a JSON {json_type(values)}; it must be a list of objects."
            )
        if set(map(type, values)) - {dict}:
            at, wrong = next((i, v) for i, v in enumerate(values) if not isinstance(v, dict))
            raise DataError(f"{path}: entry {at} of '{key}' is {shorten(wrong)}; it must be an object.")
    return CocoContent(content["images"], content["annotations"], content["categories"], polygons)


def load_json(path: Path, polygons: PackedPolygons) -> Any:
    """What a JSON file holds, whatever it is; polygons of its objects go to `polygons`.

    Raises:
        DataError: the file is missing, cannot be read, or is not JSON.
    """
    collecting = gc.isenabled()
    # Millions of new objects and not one cycle: the collector would walk over all of them again and again.
    gc.disable()
    try:
        with open_regular_file(path) as file:
            data = file.read()
        return json.loads(data, object_hook=polygons.take)
    except FileNotFoundError as error:
        raise DataError(f"The annotation file {path} is not there: correct the path.") from error
    except OSError as error:
        raise DataError(f"The annotation file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a JSON file: byte {error.start} is not UTF-8 text.") from error
    except json.JSONDecodeError as error:
        what = "is empty" if path.stat().st_size == 0 else f"is not a whole JSON file: {error}"
        raise DataError(f"{path} {what}. Write or copy it again.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from error
    finally:
        if collecting:
            gc.enable()


def shorten(value: Any) -> str:
    """A value for a message, cut when it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def json_type(value: Any) -> str:
    """JSON's word for the kind of a value."""
    names = {list: "list", dict: "object", str: "string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")


def as_numpy(values: array) -> np.ndarray:
    """An array's memory as NumPy sees it, without a copy."""
    dtype = np.float64 if values.typecode == "d" else np.int64
    return np.frombuffer(values, dtype) if len(values) else np.zeros(0, dtype)
