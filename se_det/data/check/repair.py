"""A cleaned copy of a data set: what can be mended is, what cannot is left out, and each change is listed."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_tools

from ...errors import CheckpointError, DataError
from ...files import atomic_write, is_within, write_json
from ..annotation_marks import is_set
from ..coco_checks import leaves_folder
from ..coco_json import PACKED, as_numpy
from ..polygons import even_odd_area, polygon_area
from ..sixteen_bit import full_scale, read_deep, to_8_bits
from .findings import is_number
from .geometry import as_boxes
from .image_entries import odd_ids
from .image_files import largest_deep_value
from .masks import polygon_rows
from .report import Report
from .sources import with_sources

ANNOTATIONS, IMAGES, CHANGES = "annotations.json", "images", "changes.json"

UNUSABLE_IMAGES = ("file-outside", "missing-file", "unreadable-image", "truncated-image", "size-differs")
UNUSABLE_ANNOTATIONS = ("dangling-image", "undeclared-category", "box-empty", "box-outside", "annotation-twice")

ORIENTATION = 274  # EXIF's tag
DECIMALS = 6  # of a px, of boxes that are written anew
# What turns an upright picture back to how it is stored, by the orientations that exchange width and height.
BACK = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

Change = dict[str, Any]


def check_output(out: Path, *inputs: Path) -> None:
    """Refuse a folder for the copy that is, holds or lies in one of the input's files and folders, or has something in
    it.

    Raises:
        DataError: naming both.
    """
    target = os.path.realpath(out)
    if any(is_within(target, path) or is_within(path, target) for path in map(os.path.realpath, inputs)):
        listed = ", ".join(map(str, inputs))
        raise DataError(f"--fix {out} and the input ({listed}) lie in one another: give a folder apart from it.")
    if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise DataError(f"--fix {out} is not an empty folder: nothing is written over. Give a new one.")


@dataclass(frozen=True)
class Cleaned:
    """What became of a data set: how many images, annotations and masks are kept, of how many, and every change."""

    images: tuple[int, int]
    annotations: tuple[int, int]
    masks: tuple[int, int]
    changes: list[Change]

    @property
    def is_usable(self) -> bool:
        """Whether most of the data is still there."""
        return all(
            kept >= total / 2 and (kept or not total) for kept, total in (self.images, self.annotations, self.masks)
        )


def write_cleaned(report: Report, out: Path, *, uncrowd: bool = False) -> Cleaned:
    """Write `out`/annotations.json, `out`/images and `out`/changes.json. The input is only read.

    Args:
        uncrowd: annotations marked as crowds become plain objects.

    Images are copied as they are, but for those whose annotations were made before their EXIF rotation, which are
    stored without it.

    Raises:
        DataError: `out` is not a new folder apart from the input, or the file has faults that only its author can mend.
        CheckpointError: something cannot be written.
    """
    check_output(out, report.json_path, report.images_folder)
    _check_mendable(report)
    changes: list[Change] = [
        {"part": "file", "id": None, "change": "left out", "why": finding.detail}
        for finding in report.findings.of_kinds("format")
    ]
    changes += [
        {"part": finding.part, "id": finding.id, "change": "written in COCO's form", "why": finding.detail}
        for finding in report.findings.of_kinds("other-form")
        if finding.part != "annotations"  # whose changes are listed one by one below
    ]
    try:
        kept_images = _images(report, out, changes)
    except OSError as error:
        raise CheckpointError(f"The copy in {out} could not be written: {error.strerror or error}.") from error
    count = masks = 0

    def kept() -> Iterator[dict]:
        nonlocal count, masks
        for annotation in _annotations(report, {at for at, _ in kept_images}, changes, uncrowd):
            count += 1
            masks += bool(annotation.get("segmentation"))
            yield annotation

    head = {
        **report.document.rest,
        "images": [entry for _, entry in kept_images],
        "categories": _categories(report, changes),
    }
    atomic_write(out / ANNOTATIONS, lambda file: _write(file, head, kept()))
    write_json(out / CHANGES, with_sources(changes, report), indent=1)
    totals = len(report.document.images), len(report.document.annotations)
    had_masks = sum(PACKED in a or bool(a.get("segmentation")) for a in report.document.annotations)
    return Cleaned((len(kept_images), totals[0]), (count, totals[1]), (masks, had_masks), changes)


def _check_mendable(report: Report) -> None:
    document, findings = report.document, report.findings
    if not document.images or not document.categories:
        raise DataError(f"{report.title} has no images or no categories: there is nothing that --fix could clean.")
    names = [document.categories[finding.at].get("name") for finding in findings.of_kinds("category-id-twice")]
    if names:
        raise DataError(
            f"{report.title}: category ids stand for several categories (one of them {names[0]!a}), and which one "
            "an annotation means cannot be known. Correct 'categories' by hand, then give --fix again."
        )
    if any(type(i) is not int or abs(i) >= 2**63 for i in (entry.get("id") for entry in document.categories)):
        raise DataError(
            f"{report.title}: a category has no id that is a whole number below 2^63. Correct it by hand first."
        )


def _images(report: Report, out: Path, changes: list[Change]) -> list[tuple[int, dict]]:
    findings, table = report.findings, report.images
    reasons: dict[int, str] = {}
    for finding in findings.of_kinds(*UNUSABLE_IMAGES, "split-duplicate"):
        reasons.setdefault(finding.at, finding.detail)
    for finding in findings.of_kinds("image-id-twice", "duplicate-image", "file-twice"):
        _drop_duplicate(report, finding.at, finding.kind, finding.detail, reasons)
    swapped = findings.positions("images", "exif-swapped")
    odd = odd_ids(table.ids)
    largest = largest_deep_value(report.pictures)
    scale = full_scale(largest) if findings.of_kinds("16-bit-range") else None
    taken: dict[str, str] = {}  # names in the copy, by the files that they are copies of
    kept = []
    for at, entry in enumerate(report.document.images):
        place = {"part": "images", "id": table.ids[at], "file_name": table.names[at]}
        picture = report.pictures[at]
        if at in odd or picture is None:
            reasons.setdefault(at, "it has no usable id or file_name")
        entry = dict(entry)
        if at not in reasons and not np.isfinite(table.sizes[at]).all():
            entry["height"], entry["width"] = picture.size
            changes.append({**place, "change": "size set", "why": "its declared size was no size"})
        if at not in reasons:
            name = table.names[at]
            stored = _stored_name(name, taken)
            if stored != entry.get("file_name"):
                changes.append({**place, "change": f"file_name corrected to {stored!a}",
                                "why": f"it was {entry.get('file_name')!a}"})  # fmt: skip
                entry["file_name"] = stored
            target = out / IMAGES / stored
            target.parent.mkdir(parents=True, exist_ok=True)
            if scale is not None and picture.largest is not None and picture.orientation == 1:
                target = target.with_name(f"{target.name}.png")
                entry["file_name"] = f"{stored}.png"
                cells = to_8_bits(read_deep(report.images_folder / name), scale)
                Image.fromarray(cells).save(target)
                changes.append({**place, "change": f"scaled to 8 bits ({scale} is white), as {entry['file_name']!a}",
                                "why": "its values use a part of 16 bits"})  # fmt: skip
            elif at in swapped:
                fault = _store_upright(report.images_folder / name, target)
                if fault:
                    reasons[at] = fault
                else:
                    changes.append({**place, "change": "stored without EXIF rotation", "why": "its annotations are "
                                    "of the picture before it"})  # fmt: skip
            elif not target.exists():
                shutil.copyfile(report.images_folder / name, target)
        if at in reasons:
            changes.append({**place, "change": "left out, with its annotations", "why": reasons[at]})
        else:
            kept.append((at, entry))
    return kept


def _stored_name(name: str, taken: dict[str, str]) -> str:
    """Where the copy keeps the file `name`: below its folder, whatever the name says."""
    if name in taken:
        return taken[name]
    stored = name
    if leaves_folder(name):
        path = PurePosixPath(name)
        stored, number = path.name, 1
        while stored in taken.values():
            number += 1
            stored = f"{path.stem}-{number}{path.suffix}"
    taken[name] = stored
    return stored


def _drop_duplicate(report: Report, at: int, kind: str, why: str, reasons: dict[int, str]) -> None:
    """Of an id twice both go, as whose its annotations are is not known, unless both name one file. Of a picture twice
    the one with fewer annotations goes."""
    table = report.images
    if kind == "image-id-twice":
        first = table.position[table.ids[at]]
        reasons.setdefault(at, why)
        if table.names[first] != table.names[at]:
            reasons.setdefault(first, f"its id is also that of {table.names[at]!a}")
        return
    picture = report.pictures[at]
    twins = [
        other
        for other, p in enumerate(report.pictures)
        if p is not None and picture is not None and (p.digest, p.size) == (picture.digest, picture.size)
        and other not in reasons
    ]  # fmt: skip
    if len(twins) > 1:
        used = np.bincount(report.annotations.owner[report.annotations.owner >= 0], minlength=len(table.ids))
        best = max(twins, key=lambda other: (used[other], -other))
        for other in twins:
            if other != best:
                reasons[other] = f"has the pixels of image {table.ids[best]!r}"


def _store_upright(source: Path, target: Path) -> str | None:
    """Write the stored pixels, without loss, with the EXIF orientation set to upright; a reason when that cannot be."""
    with Image.open(source) as image:
        if image.format in ("PNG", "WEBP"):
            exif = image.getexif()
            exif[ORIENTATION] = 1
            image.save(target, format=image.format, exif=exif, lossless=True)
            return None
        if image.format == "TIFF":
            return _store_tiff_unturned(image, target)
        stored = image.info.get("exif", b"") if image.format == "JPEG" else b""
    data, upright = source.read_bytes(), _upright(stored)
    if upright is None or data.count(stored) != 1:
        return f"its EXIF rotation cannot be taken out of this {image.format} file"
    target.write_bytes(data.replace(stored, upright))
    return None


def _store_tiff_unturned(image: Image.Image, target: Path) -> str | None:
    """Pillow has a TIFF turned when its pixels are read: turn it back."""
    orientation = image.getexif().get(ORIENTATION)
    if getattr(image, "n_frames", 1) > 1:
        return "its EXIF rotation cannot be taken out of a TIFF of several pages"
    image.load()
    stored = image if image.getexif().get(ORIENTATION) else image.transpose(BACK[orientation])
    stored.save(target, format="TIFF", compression="tiff_lzw", tiffinfo={ORIENTATION: 1})
    return None


def _upright(exif: bytes) -> bytes | None:
    """EXIF data of a JPEG with the one number changed that says how the picture is turned; None without one."""
    order = {b"II": "<", b"MM": ">"}.get(exif[6:8])
    if exif[:6] != b"Exif\0\0" or order is None:
        return None
    try:
        first = 6 + struct.unpack_from(f"{order}I", exif, 10)[0]
        for place in range(first + 2, first + 2 + 12 * struct.unpack_from(f"{order}H", exif, first)[0], 12):
            if struct.unpack_from(f"{order}HHI", exif, place) == (ORIENTATION, 3, 1):  # one 16-bit number
                return exif[: place + 8] + struct.pack(f"{order}H", 1) + exif[place + 10 :]
    except struct.error:
        pass
    return None


def _categories(report: Report, changes: list[Change]) -> list[dict]:
    wrong = report.findings.positions("categories", "wrong-type")
    kept = []
    for at, entry in enumerate(report.document.categories):
        if at in wrong:
            entry = {**entry, "name": f"category {entry['id']}"}
            changes.append({"part": "categories", "id": entry["id"], "change": f"named {entry['name']!r}",
                            "why": "it had no name"})  # fmt: skip
        kept.append(entry)
    return kept


def _annotations(report: Report, images: set[int], changes: list[Change], uncrowd: bool) -> Iterator[dict]:
    """The annotations that stay, mended. They are made as they are written: a second copy of all would not fit."""
    findings, table = report.findings, report.annotations
    reasons: dict[int, str] = {}
    for finding in findings.of_kinds(*UNUSABLE_ANNOTATIONS):
        reasons.setdefault(finding.at, finding.detail)
    fresh = odd_ids(table.ids)
    texts = any(type(value) is str for at, value in enumerate(table.ids) if at not in fresh)
    new_id = 0 if texts else max((value for at, value in enumerate(table.ids) if at not in fresh), default=0)
    fresh |= findings.positions("annotations", "annotation-id-twice")
    wrong_area = findings.positions("annotations", "area-off")
    boxes = as_boxes(table.xywh, report.conventions.corners)
    outlying = findings.positions("annotations", "box-sticks-out")
    polygons = _Polygons(report)
    forms: dict[int, list[str]] = {}
    for finding in findings.of_kinds("other-form"):
        if finding.part == "annotations":
            forms.setdefault(finding.at, []).append(finding.detail)
    for at, entry in enumerate(report.document.annotations):
        owner = int(table.owner[at])
        why = reasons.get(at) or ("its box, image or category is missing" if _reason_to_drop(report, at) else None)
        if why or owner not in images:
            if why:  # those of an image that is left out are told of with it
                changes.append({"part": "annotations", "id": table.ids[at], "change": "left out", "why": why})
            continue
        size = report.images.sizes[owner]
        height, width = size if np.isfinite(size).all() else report.pictures[owner].size
        entry, done = dict(entry), forms.get(at, [])
        if at in fresh:
            new_id += 1
            entry["id"] = f"new {new_id}" if texts else new_id
            done.append(f"id {entry['id']} given")
        box = boxes[at]
        if report.conventions.fractions[at]:
            box = box * [width, height, width, height]
        if report.conventions.corners[at] or report.conventions.fractions[at]:
            done.append("box rewritten as [x, y, width, height] px")
        low, high = np.maximum(box[:2], 0), np.minimum(box[:2] + box[2:], [width, height])
        if (np.round(high - low, DECIMALS) <= 0).any() or (np.round(box[2:], DECIMALS) <= 0).any():
            changes.append({"part": "annotations", "id": table.ids[at], "change": "left out",
                            "why": "its box has no area within its image"})  # fmt: skip
            continue
        clipped = np.concatenate((low, high - low))
        if at in outlying and not np.allclose(clipped, box, rtol=0, atol=1e-6):
            done.append("box clipped to its image")
            box = clipped
        if not np.array_equal(box, table.xywh[at]):
            entry["bbox"] = [round(float(value), DECIMALS) for value in box]
        holes = polygons.with_holes(entry, (int(height), int(width)))
        _mend_mask(entry, at, at in report.masks.unusable, polygons, done)
        if holes is not None:
            entry["segmentation"] = holes
            done.append("polygons with holes encoded as RLE, as its area says")
        if type(entry.get("iscrowd", 0)) not in (int, bool) or entry.get("iscrowd", 0) not in (0, 1):
            entry["iscrowd"] = int(str(entry["iscrowd"]) in ("1", "1.0"))
            done.append(f"iscrowd set to {entry['iscrowd']}")
        if uncrowd and is_set(entry.get("iscrowd", 0)):
            entry["iscrowd"] = 0
            done.append("iscrowd set to 0")
        if at in wrong_area or ("area" in entry and not np.isfinite(table.area[at])):
            area = report.expected_area[at] if not report.conventions.fractions[at] else np.nan
            entry["area"] = float(area if np.isfinite(area) else box[2] * box[3])
            done.append("area computed again")
        if done:
            changes.append({"part": "annotations", "id": table.ids[at], "change": "; ".join(done), "why": "check"})
        yield entry


def _reason_to_drop(report: Report, at: int) -> bool:
    table = report.annotations
    return table.owner[at] < 0 or table.category[at] < 0 or not np.isfinite(table.xywh[at]).all()


class _Polygons:
    """Each annotation's sound polygons, as lists again."""

    def __init__(self, report: Report) -> None:
        packed = report.document.polygons
        _, self._start = polygon_rows(report.document)
        self._values = as_numpy(packed.values)
        self._last = np.cumsum(as_numpy(packed.counts))
        self._counts = as_numpy(packed.counts)
        self._bad = report.masks.bad_polygons
        self._depth = report.masks.depth

    def of(self, number: int) -> tuple[list[list[float]], int]:
        """The sound polygons, and how many are left out."""
        rows = range(int(self._last[number] - self._counts[number]), int(self._last[number]))
        sound = [self._values[self._start[row] : self._start[row + 1]].tolist() for row in rows if not self._bad[row]]
        return sound, len(rows) - len(sound)

    def with_holes(self, entry: dict, size: tuple[int, int]) -> dict | None:
        """The RLE of an annotation whose `area` says that polygons inside others are holes; None for any other."""
        number = entry.get(PACKED)
        if number is None:
            return None
        rows = np.arange(int(self._last[number] - self._counts[number]), int(self._last[number]))
        rows = rows[~self._bad[rows]]
        depth = self._depth[rows]
        if not (depth % 2).any():
            return None
        polygons = [self._values[self._start[row] : self._start[row + 1]] for row in rows]
        areas = np.array([polygon_area(polygon.reshape(-1, 2)) for polygon in polygons])
        hollow, filled = even_odd_area(areas, depth), float(areas[depth == 0].sum())
        area = entry.get("area")
        if not is_number(area) or not abs(area - hollow) < min(abs(area - filled), abs(area - areas.sum())):
            return None
        mask = np.zeros(size, bool)
        for polygon in polygons:
            (rle,) = mask_tools.frPyObjects([polygon.tolist()], *size)
            mask ^= mask_tools.decode(rle).astype(bool)
        encoded = mask_tools.encode(np.asfortranarray(mask, np.uint8))
        return {"size": list(size), "counts": encoded["counts"].decode("ascii")}


def _mend_mask(entry: dict, at: int, unusable: bool, polygons: _Polygons, done: list[str]) -> None:
    number = entry.pop(PACKED, None)
    if number is not None:
        sound, left_out = polygons.of(number)
        entry["segmentation"] = sound
        if left_out:
            done.append(f"{left_out} polygons removed")
    elif unusable:
        entry["segmentation"] = []
        done.append("segmentation removed")


def _write(file: IO[bytes], head: dict[str, Any], annotations: Iterator[dict]) -> None:
    """The JSON, an annotation at a time."""
    text = json.dumps(head)
    file.write(text[:-1].encode() + (b", " if head else b"") + b'"annotations": [')
    for number, annotation in enumerate(annotations):
        file.write((b", " if number else b"") + json.dumps(annotation).encode())
    file.write(b"]}\n")
