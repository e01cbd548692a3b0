"""CSV files with a row per box: TensorFlow's and Roboflow's with a header, RetinaNet's without one."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from ..listing import is_image_name
from .csv_rows import beginning, rows, shorten_row
from .open_images import is_open_images
from .protocol import Found, Picture, Reading, Shape
from .reading import class_name, number, whole
from .tree import Tree, extension, split_of

# What headers call a column.
COLUMNS = {
    "image": ("filename", "file_name", "image", "image_name", "imagename", "image_path", "imagepath", "path", "file",
              "img", "image_id", "imageid", "filepath", "img_path"),
    "class": ("class", "label", "class_name", "classname", "label_name", "labelname", "name", "category",
              "category_name"),
    "x1": ("xmin", "x_min", "x1", "left", "xtl", "bbox_x1", "box_xmin"),
    "y1": ("ymin", "y_min", "y1", "top", "ytl", "bbox_y1", "box_ymin"),
    "x2": ("xmax", "x_max", "x2", "right", "xbr", "bbox_x2", "box_xmax"),
    "y2": ("ymax", "y_max", "y2", "bottom", "ybr", "bbox_y2", "box_ymax"),
    "x": ("x", "bbox_x", "x1", "xmin", "x_min", "left"),
    "y": ("y", "bbox_y", "y1", "ymin", "y_min", "top"),
    "w": ("w", "bbox_width", "box_width", "bbox_w"),
    "h": ("h", "bbox_height", "box_height", "bbox_h"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
}  # fmt: skip
CORNERS = ("x1", "y1", "x2", "y2")
MOST_TEXTS = 20  # .txt files that are looked at: where there are more, they are label files of YOLO
SIDES = ("x", "y", "w", "h")
CENTRES = frozenset(("cx", "cy", "x_center", "y_center", "xcenter", "ycenter", "x_centre", "y_centre"))


class CsvFormat:
    """One CSV, or one per split."""

    name = "CSV of boxes"
    looks_for = "a .csv with columns as filename, xmin, ymin, xmax, ymax, class, or rows image,x1,y1,x2,y2,class"

    def recognise(self, tree: Tree) -> Found | None:
        """By the header, or by the first rows of a file without one."""
        texts = tree.of("txt")
        files = [*tree.of("csv", "tsv"), *(texts if len(texts) <= MOST_TEXTS else ())]
        files = [tree.chosen] if tree.chosen.is_file() else files
        files = [path for path in files if extension(path.name) in ("csv", "tsv", "txt") and _layout(beginning(path))]
        if not files:
            return None
        return Found(self, ", ".join(os.path.relpath(path, tree.root) for path in files[:3]), tuple(files))

    def read(self, tree: Tree, found: Found) -> Reading:
        """Read the files, one per split."""
        by_split: dict[str, list[Path]] = defaultdict(list)
        for path in found.files:
            by_split[split_of(path, tree.root) or "train"].append(path)
        reading = Reading(splits={})
        for split, paths in by_split.items():
            if len(paths) > 1:
                listed = " and ".join(str(path) for path in paths[:4])
                raise DataError(
                    f"{len(paths)} CSV files may be the split {split!r}: {listed}. Give the one that is meant in "
                    "place of the folder, or put 'train', 'val' or 'test' into their names."
                )
            reading.splits[split] = _pictures(paths[0], tree, reading)
        return reading


def _layout(some: list[list[str]]) -> dict[str, int] | None:
    """Which column has what; "header" says whether the first row is one. None where this is no CSV of boxes."""
    if not some:
        return None
    header = [re.sub(r"[\s\-]+", "_", cell.strip().lower()) for cell in some[0]]
    found: dict[str, int] = {}
    for key, names in COLUMNS.items():
        at = next((header.index(name) for name in names if name in header), None)
        if at is not None:
            found[key] = at
    if "image" in found and "class" in found and not set(header) & CENTRES and not is_open_images(some):
        # A column called `width` is the box's where no corner is given and nothing else can be.
        found |= {"w": found.get("w", found.get("width", -1)), "h": found.get("h", found.get("height", -1))}
        for keys in (CORNERS, SIDES):
            if all(found.get(key, -1) >= 0 for key in keys):
                declared = ("width", "height") if keys is CORNERS else ()
                return {key: found[key] for key in ("image", "class", *keys, *declared) if key in found} | {"header": 1}
    plain = all(is_image_name(row[0].strip()) and (len(row) == 1 or _is_box(row)) for row in some[:20])
    if plain and any(len(row) == 6 for row in some):
        return {"image": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "class": 5, "header": 0}
    return None


def _is_box(row: list[str]) -> bool:
    cells = [cell.strip() for cell in row[1:]]
    numbers = all(re.fullmatch(r"-?\d+(\.\d+)?", cell) for cell in cells[:4])
    return len(row) == 6 and (not any(cells) or numbers)


def _pictures(path: Path, tree: Tree, reading: Reading) -> Iterator[Picture]:
    layout = _layout(beginning(path)) or {}
    by_name: dict[str, Picture] = {}
    by_path: dict[Path, Picture] = {}
    missing: set[str] = set()
    widest, at_most_one = max(at for key, at in layout.items() if key != "header"), True
    bases = [path.parent, path.parent / "images", path.parent.parent / "images", tree.root]
    bases[1:1] = [path.parent / path.stem.split("_")[0], path.parent / "images" / path.stem.split("_")[0]]
    for at, (line, row) in enumerate(rows(path)):
        if at == 0 and layout["header"]:
            continue
        where = f"{path}, line {line}"
        name = row[layout["image"]] if len(row) > layout["image"] else ""
        if not name:
            raise DataError(f"{where}: there is no image in {shorten_row(row)}. Give its file.")
        if name in missing:
            continue
        picture = by_name.get(name)
        if picture is None:
            found = tree.images.find(name, bases, where)
            if found is None:
                missing.add(name)
                continue
            picture = by_path.setdefault(found, Picture(found, [], where))
            by_name[name] = picture
        if all(at >= len(row) or not row[at] for key, at in layout.items() if key in (*CORNERS, *SIDES, "class")):
            continue  # an image alone: a background
        if len(row) <= widest:
            raise DataError(f"{where} has {len(row)} cells, {shorten_row(row)}, not {widest + 1}. Correct the line.")
        picture.shapes.append(shape := _shape(row, layout, where))
        at_most_one = at_most_one and max(map(abs, shape.box)) <= 1
        if "width" in layout and "height" in layout and row[layout["width"]] and row[layout["height"]]:
            sides = tuple(whole(row[layout[key]], where, f"its {key}") for key in ("width", "height"))
            picture.declared = sides if all(sides) else None
    if missing:
        if not by_path:
            raise DataError(
                f"{path}: none of its {len(missing)} images is in {tree.root}, such as {min(missing)!r}. Put the "
                "images beside the CSV."
            )
        raise DataError(
            f"{path}: {len(missing)} of its images are not in {tree.root}, such as {min(missing)!r}. Add them, or take "
            "their lines out."
        )
    if at_most_one and any(picture.shapes for picture in by_path.values()):
        raise DataError(
            f"{path}: no coordinate of its boxes is above 1: these seem to be shares of the image's sides. Give px "
            "(times the width and the height)."
        )
    yield from by_path.values()


def _shape(row: list[str], layout: dict[str, int], where: str) -> Shape:
    name = class_name(row[layout["class"]], where)
    keys = CORNERS if "x1" in layout else SIDES
    a, b, c, d = (number(row[layout[key]], where, key) for key in keys)
    return Shape(name, box=(a, b, c, d) if keys is CORNERS else (a, b, a + c, b + d))
