"""A cleaned copy of a data set: what can be mended is, what cannot is left out, and each change is listed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...errors import CheckpointError, DataError
from ...files import atomic_write, is_within, write_json
from ..coco_json import PACKED
from .findings import Change
from .repair_annotations import kept_annotations
from .repair_images import kept_images
from .report import Report
from .sources import with_sources

ANNOTATIONS, CHANGES = "annotations.json", "changes.json"


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
        stored = kept_images(report, out, changes)
    except OSError as error:
        raise CheckpointError(f"The copy in {out} could not be written: {error.strerror or error}.") from error
    count = masks = 0

    def kept() -> Iterator[dict]:
        nonlocal count, masks
        for annotation in kept_annotations(report, {at for at, _ in stored}, changes, uncrowd):
            count += 1
            masks += bool(annotation.get("segmentation"))
            yield annotation

    head = {
        **report.document.rest,
        "images": [entry for _, entry in stored],
        "categories": _categories(report, changes),
    }
    atomic_write(out / ANNOTATIONS, lambda file: _write(file, head, kept()))
    write_json(out / CHANGES, with_sources(changes, report), indent=1)
    totals = len(report.document.images), len(report.document.annotations)
    had_masks = sum(PACKED in a or bool(a.get("segmentation")) for a in report.document.annotations)
    return Cleaned((len(stored), totals[0]), (count, totals[1]), (masks, had_masks), changes)


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


def _write(file: IO[bytes], head: dict[str, Any], annotations: Iterator[dict]) -> None:
    """The JSON, an annotation at a time."""
    text = json.dumps(head)
    file.write(text[:-1].encode() + (b", " if head else b"") + b'"annotations": [')
    for number, annotation in enumerate(annotations):
        file.write((b", " if number else b"") + json.dumps(annotation).encode())
    file.write(b"]}\n")
