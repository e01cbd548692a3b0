"""The zoo's trained detectors that lie on this machine, evaluated beside what their authors measured."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.loading import merge_overrides
from ..data.catalog import dataset_paths
from ..errors import ConfigError, SeDetError
from ..files import write_json, write_text
from ..weights import config_of_checkpoint
from ..weights.download import cache_path
from ..weights.entries import DetectorEntry
from ..weights.zoo import SCHEME, detector_entries
from .run import run_evaluation

# Published figures have one digit (0.05); another version of the image decoder, or of cuDNN, makes some hundredths.
TOLERANCE = 0.15
RESULT, TABLE = "result.json", "table.md"
# Named sets that lie in a COCO folder: annotations, images.
IN_COCO = {
    "coco_2017_val": ("annotations/instances_val2017.json", "val2017"),
    "keypoints_coco_2017_val": ("annotations/person_keypoints_val2017.json", "val2017"),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """What became of an entry.

    Attributes:
        reported, measured: percent by task/metric.
        images_per_second: of the whole evaluation, with the reading of weights and annotations.
        failure: why there are no numbers; "" where there are.
        asked: what was evaluated on what; a result of the same is not computed again.
    """

    name: str
    reported: dict[str, float]
    measured: dict[str, float] = field(default_factory=dict)
    images: int = 0
    images_per_second: float = 0.0
    failure: str = ""
    asked: dict[str, Any] = field(default_factory=dict)

    def differences(self) -> dict[str, float]:
        """Measured less reported, of the metrics that both have."""
        return {key: self.measured[key] - value for key, value in self.reported.items() if key in self.measured}

    def differs(self, tolerance: float) -> bool:
        """Whether a number is further off than `tolerance`, or not a number, or one that was reported is missing."""
        found = self.differences()
        return len(found) < len(self.reported) or not all(abs(x) <= tolerance for x in found.values())


def chosen_entries(names: Sequence[str]) -> list[DetectorEntry]:
    """The entries of these names or shell patterns; all without any.

    Raises:
        ConfigError: one matches none.
    """
    found: dict[str, DetectorEntry] = {}
    for name in names or ["*"]:
        matching = detector_entries(name.removeprefix(SCHEME))
        if not matching:
            raise ConfigError(f"--only {name} is no trained detector of the zoo: model_zoo/README.md lists all.")
        found |= {entry.name: entry for entry in matching}
    return list(found.values())


def find_file(entry: DetectorEntry, folder: Path | None) -> Path | None:
    """The entry's file below `folder`, or in the cache of downloads; None where it is not."""
    if folder is not None:
        found = sorted(folder.rglob(entry.file_name))
        if found:
            return found[0]
    cached = cache_path(entry.url)
    return cached if cached.is_file() else None


def reproduce(
    entries: Iterable[DetectorEntry],
    *,
    coco: Path,
    output: Path,
    weights: Path | None = None,
    download: bool = False,
    overrides: Sequence[Any] = (),
    tolerance: float = TOLERANCE,
) -> list[Row]:
    """Evaluate those entries whose files are there, one after another; the table is written anew after each.

    Args:
        coco: COCO's folder, with `annotations/` and `val2017/`.
        output: a folder for each entry, and the table. What is there already is taken from there.
        weights: where files are looked for, besides the cache.
        download: fetch what is not there.
        overrides: `[key, value, ...]`.
        tolerance: for the table.

    Returns:
        a row for each entry that was evaluated now or before, or could not be; none for one without a file.
    """
    rows = []
    for entry in entries:
        file = find_file(entry, weights)
        if file is None and not download:
            continue
        row = _row(entry, file, coco, output, overrides)
        rows.append(row)
        write_text(output / TABLE, table(rows, tolerance))
    return rows


def _row(entry: DetectorEntry, file: Path | None, coco: Path, output: Path, overrides: Sequence[Any]) -> Row:
    folder, reported = output / entry.name, dict(entry.reported)
    try:
        pairs, annotations = _data(entry, coco)
        asked = {
            "weights": entry.url,
            "annotations": hashlib.sha256(annotations.read_bytes()).hexdigest(),
            "keys": [str(word) for word in overrides],
        }
        before = _before(folder / RESULT)
        if before is not None and before.asked == asked:
            logger.info("%s: taken from %s.", entry.name, folder / RESULT)
            return before
        source = str(file) if file is not None else f"{SCHEME}{entry.name}"
        cfg = config_of_checkpoint(source, [*pairs, "OUTPUT_DIR", str(folder)])
        merge_overrides(cfg, overrides)
        cfg.freeze()
        images = len(json.loads(annotations.read_text(encoding="utf-8"))["images"])
        start = time.perf_counter()
        metrics = run_evaluation(cfg)
        spent = time.perf_counter() - start
    except SeDetError as error:
        if error.exit_code >= 128:  # a signal: what was done is kept, the rest is for the next run
            raise
        logger.error("%s: %s", entry.name, error)
        return Row(entry.name, reported, failure=str(error))
    measured = {
        key: float(value)
        for key in reported
        if (value := metrics.get(key.split("/")[0], {}).get(key.split("/")[1])) is not None
    }
    row = Row(entry.name, reported, measured, images, images / spent, "", asked)
    write_json(folder / RESULT, asdict(row), indent=2)
    return row


def _before(path: Path) -> Row | None:
    try:
        return Row(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _data(entry: DetectorEntry, coco: Path) -> tuple[list[str], Path]:
    """Where the entry's test data lie, as `[key, value, ...]`; and the file of their annotations.

    Raises:
        SeDetError: they are not there.
    """
    (name,) = entry.config["DATASETS.TEST"]
    if name not in IN_COCO:
        annotations, pairs = dataset_paths(name)[0], []
    else:
        annotations, images = (coco / place for place in IN_COCO[name])
        pairs = ["DATASETS.VAL_JSON", str(annotations), "DATASETS.VAL_IMAGES", str(images)]
    if not annotations.is_file():
        raise ConfigError(f"{annotations} is not there, by which {entry.name} is evaluated ({name}).")
    return pairs, annotations


def table(rows: Sequence[Row], tolerance: float) -> str:
    """A line for each number, in Markdown."""
    lines = [
        "| detector | metric | reported | measured | difference | images | images/s | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.failure:
            lines.append(f"| {row.name} | | | | | | | {row.failure.replace('|', '/')} |")
            continue
        for key, reported in row.reported.items():
            measured = row.measured.get(key, math.nan)
            verdict = "" if abs(measured - reported) <= tolerance else f"differs by more than {tolerance:g}"
            verdict = verdict if key in row.measured else "not measured: the evaluator does not give it"
            lines.append(
                f"| {row.name} | {key} | {reported:.1f} | {measured:.2f} | {measured - reported:+.2f} | {row.images} "
                f"| {row.images_per_second:.2f} | {verdict} |"
            )
    return "\n".join(lines) + "\n"
