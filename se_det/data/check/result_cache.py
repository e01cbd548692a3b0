"""What a check came to, kept by the content of its files, so that a training run need not decode them again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError, SeDetError
from ...files import write_json
from ...weights.download import cache_folder
from .findings import SEVERITIES
from .report import Report, check_dataset

VERSION = 4  # raised when what is looked for changes: older verdicts are not used then
CHECKED_AT_ONCE = 2000  # images: larger sets are decoded by check-data alone, not at the start of a run
NOT_CACHED = 100  # images: so few are decoded faster than anyone looks
# Training would end at such an image, whenever it comes to it.
FATAL = (
    "file-name-off",
    "unreadable-image",
    "truncated-image",
    "size-differs",
    "exif-swapped",
    "file-outside",
    "missing-file",
)
EXAMPLES = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckSummary:
    """Counts of each kind by severity, and the first images that training would end at."""

    counts: dict[str, dict[str, int]]
    stopping: list[str]
    stopping_count: int


def cache_summary(report: Report) -> CheckSummary:
    """Make the verdict of a check that decoded the images, and write it to the cache where that can be done."""
    stopping = [
        f"image {finding.id!r} ({report.images_folder / (finding.file or '')}): {finding.detail}"
        for finding in report.findings.of_kinds(*FATAL)
    ]
    counts = {severity: report.findings.counts(severity) for severity in SEVERITIES}
    summary = CheckSummary(counts, stopping[:EXAMPLES], len(stopping))
    if len(report.images.ids) > NOT_CACHED:
        names = [name for name in report.images.names if name is not None]
        try:
            digest = _json_digest(report.json_path)
            entry = {"version": VERSION, "files": files_digest(report.images_folder, names), "verdict": asdict(summary)}
            write_json(_cache_path(digest, report.images_folder), entry)
        except (OSError, SeDetError) as error:
            logger.info("The verdict on %s is not kept for the next run: %s", report.json_path, error)
    return summary


def summary_at_start(
    json_path: Path, folder: Path, names: list[str], *, absolute_file_names: bool = False
) -> CheckSummary | None:
    """The verdict on a data set whose JSON could be read: the kept one, a new one for a small set, or none."""
    if len(names) > NOT_CACHED:
        kept = _cached(json_path, folder, names)
        if kept is not None:
            return kept
    if len(names) > CHECKED_AT_ONCE:
        return None
    title = f"checking {Path(json_path).name}"
    return cache_summary(check_dataset(json_path, folder, absolute_file_names=absolute_file_names, progress=title))


def log_summary(summary: CheckSummary | None, json_path: Path, folder: Path, *, tolerated: int = 0) -> None:
    """Log what the check found.

    Args:
        tolerated: how many images that cannot be used the run goes on without.

    Raises:
        DataError: there are more images that training would end at.
    """
    command = f"se-det check-data --json {json_path} --images {folder}"
    if summary is None:
        logger.info("%s: its images were not checked, or changed since. Check them once with `%s`.", json_path, command)
        return
    if summary.stopping_count > tolerated:
        more = summary.stopping_count - len(summary.stopping)
        first = "; ".join(summary.stopping) + (f"; and {more} more" if more else "")
        raise DataError(
            f"{summary.stopping_count} images of {json_path} (in {folder}) cannot be used: {first}. `{command}` lists "
            "all that is wrong; with --fix OUT it writes a cleaned copy."
        )
    found = [f"{n} {kind}" for severity in ("error", "warning") for kind, n in summary.counts[severity].items()]
    if found:
        logger.warning("%s: the check of the data found %s. `%s` says where.", json_path, ", ".join(found), command)
    else:
        logger.info("%s: the check of the data found no errors and nothing to warn of.", json_path)


def files_digest(folder: Path, names: list[str]) -> str:
    """Of name, size and time of change of each file: what decoding it would give again."""
    digest = hashlib.sha256()
    for name in names:
        try:
            status = os.stat(folder / name)
            digest.update(f"{name!a} {status.st_size} {status.st_mtime_ns}\n".encode())
        except (OSError, ValueError):
            digest.update(f"{name!a} missing\n".encode())
    return digest.hexdigest()


def _cached(json_path: Path, folder: Path, names: list[str]) -> CheckSummary | None:
    try:
        path = _cache_path(_json_digest(json_path), folder)
        if not path.is_file():  # before every file is asked for
            return None
        entry: Any = json.loads(path.read_bytes())
        if entry["version"] != VERSION or entry["files"] != files_digest(folder, names):
            return None
        return CheckSummary(**entry["verdict"])
    except (OSError, ValueError, KeyError, TypeError):  # a cache that cannot be read is none
        return None


def _json_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _cache_path(json_digest: str, folder: Path) -> Path:
    key = hashlib.sha256(f"{json_digest} {os.path.realpath(folder)!a}".encode()).hexdigest()
    return cache_folder() / "checks" / f"{key[:32]}.json"
