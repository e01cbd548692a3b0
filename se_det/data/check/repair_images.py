"""The images of a cleaned copy of a data set: which are kept, and how their files are stored."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..coco_checks import leaves_folder
from ..sixteen_bit import full_scale, read_deep, to_8_bits
from .findings import Change
from .image_entries import odd_ids
from .image_files import largest_deep_value
from .report import Report

IMAGES = "images"  # the copy's folder of them
UNUSABLE_IMAGES = ("file-outside", "missing-file", "unreadable-image", "truncated-image", "size-differs")
ORIENTATION = 274  # EXIF's tag
# What turns an upright picture back to how it is stored, by the orientations that exchange width and height.
BACK = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def kept_images(report: Report, out: Path, changes: list[Change]) -> list[tuple[int, dict]]:
    """The images that stay, with their positions; their files are written to the folder of images in `out`."""
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
