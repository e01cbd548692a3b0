"""The whole check of a data set, and what it came to: a text for people, a JSON for machines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from .annotation_entries import AnnotationTable, check_annotations, check_repeats, class_counts
from .document import Document, read_document
from .findings import ERROR, KINDS, SEVERITIES, Finding, Findings
from .geometry import Conventions, as_boxes, check_areas, check_boxes
from .image_entries import ImageTable, check_categories, check_images, find_near_misses
from .image_files import Picture, check_pictures, decode_all
from .masks import MaskTable, check_masks
from .scale import check_scale
from .value_forms import mend_value_forms

EXAMPLES = 3  # of each kind in the text


@dataclass
class Report:
    """What was found in a data set.

    Attributes:
        pictures: what each image file turned out to be; empty when none was decoded.
        expected_area: float64 (n,) px^2 of each annotation's mask, or box; nan where unknown.
        title: what sentences call the data set.
        sources: where the annotations of each image stand in the files that the JSON was made of; none where it is
            the user's own.
    """

    json_path: Path
    images_folder: Path
    findings: Findings
    document: Document
    images: ImageTable
    annotations: AnnotationTable
    masks: MaskTable
    conventions: Conventions
    expected_area: np.ndarray
    pictures: list[Picture | None] = field(default_factory=list)
    title: str = ""
    sources: Sequence[str] = ()

    def source_of(self, finding: Finding) -> str | None:
        """Where in the user's files a finding is; None where it is in the JSON, or of no image."""
        at = self._image_of(finding)
        return self.sources[at] if self.sources and at is not None else None

    def sentence(self, finding: Finding) -> str:
        """The place of a finding, and what is wrong there. A JSON that was made of other files is not spoken of."""
        source = self.source_of(finding)
        if source is None:
            return finding.sentence()
        name = self.images.names[self._image_of(finding)]
        image = "" if name is None or source.endswith(name) else f" ({name!a})"
        box = f"object at {self._box_of(finding.at)}: " if finding.part == "annotations" else ""
        return f"{source}{image}: {box}{finding.detail}"

    def _image_of(self, finding: Finding) -> int | None:
        """The position of the image that a finding is of."""
        if finding.part == "annotations" and finding.at >= 0:
            owner = int(self.annotations.owner[finding.at])
            return owner if owner >= 0 else None
        return finding.at if finding.part == "images" and finding.at >= 0 else None

    def _box_of(self, at: int) -> str:
        x, y, width, height = self.annotations.xywh[at]
        return f"[{x:.6g}, {y:.6g}, {x + width:.6g}, {y + height:.6g}]"

    @property
    def errors(self) -> int:
        """How many errors there are."""
        return sum(self.findings.counts(ERROR).values())

    @property
    def classes(self) -> list[tuple[str, int]]:
        """(name, annotations) of each category."""
        return class_counts(self.annotations, self.document)

    def box_sides(self) -> np.ndarray:
        """float64 (n,): the square root of the area of each usable box, px."""
        xywh = as_boxes(self.annotations.xywh, self.conventions.corners)
        sides = xywh[np.isfinite(xywh).all(axis=1) & (xywh[:, 2:] > 0).all(axis=1), 2:]
        return np.sqrt(sides.prod(axis=1))

    def as_dict(self) -> dict[str, Any]:
        """The report for machines: every finding with its kind, severity, place and detail."""
        return {
            "json": str(self.json_path),
            "title": self.title,
            "images_folder": str(self.images_folder),
            "images": len(self.images.ids),
            "images_decoded": sum(p is not None and p.fault is None for p in self.pictures),
            "annotations": len(self.annotations.ids),
            "crowds": int(self.annotations.crowd.sum()),
            "categories": [{"name": name, "annotations": count} for name, count in self.classes],
            "counts": {severity: self.findings.counts(severity) for severity in SEVERITIES},
            "findings": [self._entry(finding) for finding in self.findings],
        }

    def text(self) -> str:
        """The report for people: counts, then each kind of fault with its first places."""
        decoded = f"{sum(p is not None for p in self.pictures)} files looked at" if self.pictures else "no file opened"
        sides = self.box_sides()
        lines = [
            f"{self.title}: {len(self.images.ids)} images ({decoded}), {len(self.annotations.ids)} annotations "
            f"({int(self.annotations.crowd.sum())} crowds), {len(self.document.categories)} categories.",
        ]
        if len(sides):
            small, middle = int((sides < 32).sum()), int(((sides >= 32) & (sides < 96)).sum())
            lines.append(
                f"Boxes (square root of the area, px): {small} below 32, {middle} to 96, {len(sides) - small - middle} "
                f"above; median {np.median(sides):.1f}."
            )
        for severity in SEVERITIES:
            for kind, count in sorted(self.findings.counts(severity).items(), key=lambda pair: -pair[1]):
                lines.append(f"{severity:>8}  {count:>7}  {kind}: {KINDS[kind].title}; {KINDS[kind].remedy}")
                found = self.findings.of_kinds(kind)
                lines += [f"{'':19}{self.sentence(finding)}" for finding in found[:EXAMPLES]]
                if count > EXAMPLES:
                    lines.append(f"{'':19}... and {count - EXAMPLES} more")
        totals = [f"{sum(self.findings.counts(severity).values())} {severity}s" for severity in SEVERITIES]
        lines.append(", ".join(totals) + ".")
        return "\n".join(lines)

    def _entry(self, finding: Finding) -> dict[str, Any]:
        return {
            "kind": finding.kind,
            "severity": KINDS[finding.kind].severity,
            "part": finding.part,
            "entry": finding.at,
            "id": finding.id,
            "file_name": finding.file,
            "source": self.source_of(finding),
            "detail": finding.detail,
        }


def check_dataset(
    json_path: str | os.PathLike,
    images_folder: str | os.PathLike,
    *,
    decode: bool = True,
    absolute_file_names: bool = False,
    progress: str = "images",
    title: str = "",
    sources: Sequence[str] = (),
) -> Report:
    """Find everything that is wrong with a COCO data set.

    Args:
        json_path: the annotation file.
        images_folder: the folder that its file names are relative to.
        decode: read every image file; False looks at the JSON alone.
        absolute_file_names: read also files whose name is absolute, or climbs out of the folder with "..".
        progress: of the bar that shows it.
        title: what sentences call the data set; default: its JSON.
        sources: as in `Report`.

    Raises:
        DataError: the folder or the annotation file is not there.
    """
    path, folder = Path(json_path), Path(images_folder)
    if not folder.is_dir():
        raise DataError(f"The folder of images {folder} (of {path}) is not there: correct the path.")
    if not path.is_file():
        raise DataError(f"The annotation file {path} is not there: correct the path.")
    findings = Findings()
    document = read_document(path, findings)
    mend_value_forms(document, findings)
    images = check_images(document, findings, absolute=absolute_file_names)
    categories = check_categories(document, findings)
    annotations = check_annotations(document, images, categories, findings)
    masks = check_masks(document, images, annotations, findings)
    conventions = check_boxes(images, annotations, masks, findings)
    expected = check_areas(annotations, masks, conventions, findings)
    check_scale(images, annotations, conventions, findings)
    check_repeats(annotations, findings)
    find_near_misses(folder, images, findings)
    pictures = decode_all(folder, images.names, title=progress) if decode else []
    check_pictures(images, pictures, findings)
    return Report(
        json_path=path,
        images_folder=folder,
        findings=findings,
        document=document,
        images=images,
        annotations=annotations,
        masks=masks,
        conventions=conventions,
        expected_area=expected,
        pictures=pictures,
        title=title or str(path),
        sources=sources,
    )
