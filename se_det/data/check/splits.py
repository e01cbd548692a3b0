"""Two splits of a data set side by side: the same categories, and no image in both."""

from __future__ import annotations

from ..coco_json import shorten
from .report import Report


def compare_splits(report: Report, other: Report) -> None:
    """Add to `report` what it has in common with `other` and should not, and where their categories differ."""
    findings = report.findings
    ours, theirs = _names(report), _names(other)
    for category_id in sorted({*ours, *theirs}):
        if ours.get(category_id) == theirs.get(category_id):
            continue
        if category_id not in theirs:
            what = f"{shorten(ours[category_id])} is not declared in {other.title}"
        elif category_id not in ours:
            what = f"{shorten(theirs[category_id])} is declared in {other.title} alone"
        else:
            what = f"is {shorten(ours[category_id])}, in {other.title} {shorten(theirs[category_id])}"
        findings.add("split-category", what, part="categories", id=category_id)

    known = {}
    for at, picture in enumerate(other.pictures):
        if picture is not None and picture.fault is None:
            known.setdefault((picture.digest, picture.size), at)
        elif picture is not None:
            findings.add("split-unreadable", f"image {other.images.ids[at]!r} of {other.title}: {picture.detail}",
                         file=other.images.names[at])  # fmt: skip
    for at, picture in enumerate(report.pictures):
        twin = known.get((picture.digest, picture.size)) if picture is not None and picture.fault is None else None
        if twin is not None:
            findings.add(
                "split-duplicate",
                f"has the pixels of image {other.images.ids[twin]!r} ({other.images.names[twin]!a}) of "
                f"{other.title}",
                part="images", at=at, id=report.images.ids[at], file=report.images.names[at],
            )  # fmt: skip


def _names(report: Report) -> dict[int, object]:
    return {
        entry["id"]: entry.get("name") for entry in reversed(report.document.categories) if type(entry.get("id")) is int
    }
