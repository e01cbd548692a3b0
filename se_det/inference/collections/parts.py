"""Results in parts: files that are whole or not there, so that what is there says what is done."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ...errors import CheckpointError, ConfigError
from ...files import atomic_write, check_writable, write_json

FOLDER, FAILED = "parts", "failures"
FAILURES, SUMMARY = "failures.jsonl", "summary.json"
FORMATS = ("jsonl", "parquet")
PART = re.compile(r"(\d{6,})-(\d{4,})(\.more)?\.(jsonl|parquet)")
LEFT = re.compile(r"\.(\d{6,})-\d{4,}\..+\.tmp")  # of a write that was killed


@dataclass
class UnitParts:
    """The parts that there are of a unit of work."""

    numbers: set[int] = field(default_factory=set)
    last: int | None = None  # the number of the one after which nothing comes

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.last is not None and self.numbers.issuperset(range(self.last))


class PartFolder:
    """The parts of a collection in `output`.

    Part 3 of unit 12 is `parts/000012-0003.jsonl`, or `000012-0003.more.jsonl` where the unit goes on after it. Images
    of it that could not be read are in `failures/000012-0003.jsonl`, which is there before the part is.

    Args:
        output: the folder.
        format: jsonl or parquet.

    Raises:
        ConfigError: Parquet without pyarrow.
    """

    def __init__(self, output: Path, format: str) -> None:
        self.output = output
        self._folder, self._failed, self._format = output / FOLDER, output / FAILED, format
        self._write = _parquet_writer() if format == "parquet" else _write_lines

    def prepare(self, units: Sequence[int]) -> None:
        """Make the folders; remove what killed writes of these units left, and a summary that no longer holds.

        Raises:
            CheckpointError: they cannot be made.
        """
        for folder in (self._folder, self._failed):
            check_writable(folder)
        mine = set(units)
        if mine:
            for name in (SUMMARY, FAILURES):
                (self.output / name).unlink(missing_ok=True)
        for folder in (self._folder, self._failed):
            for name in os.listdir(folder):
                left = LEFT.fullmatch(name)
                if left and int(left[1]) in mine:
                    with suppress(OSError):
                        os.unlink(folder / name)

    def done(self) -> dict[int, UnitParts]:
        """What there is, by unit."""
        found: dict[int, UnitParts] = {}
        names = os.listdir(self._folder) if self._folder.is_dir() else ()
        for part in filter(None, map(PART.fullmatch, names)):
            unit = found.setdefault(int(part[1]), UnitParts())
            unit.numbers.add(int(part[2]))
            if not part[3]:
                unit.last = int(part[2])
        return found

    def commit(
        self, unit: int, number: int, *, last: bool, rows: Sequence[Mapping[str, Any]],
        failures: Sequence[Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """Write a part, after its failures: it is there when both are.

        Args:
            last: whether nothing of the unit comes after it.

        Raises:
            CheckpointError: the disk is full.
        """
        name = f"{unit:06d}-{number:04d}"
        failed = self._failed / f"{name}.jsonl"
        if failures:
            atomic_write(failed, lambda file: _write_lines(failures, file))
        else:
            try:
                failed.unlink(missing_ok=True)  # of a write that was killed, where what failed then has not failed now
            except OSError as error:
                raise CheckpointError(f"{failed} cannot be removed: {error.strerror}.") from error
        path = self._folder / f"{name}{'' if last else '.more'}.{self._format}"
        atomic_write(path, lambda file: self._write(rows, file))

    def finish(self, units: int) -> dict[str, int] | None:
        """Where all `units` are complete, write `failures.jsonl` and `summary.json`.

        Returns:
            Images with results and without, detections and parts; None where some is not complete.

        Raises:
            CheckpointError: they cannot be written.
        """
        done = self.done()
        if sum(unit.complete for unit in done.values()) < units:
            return None
        path = self.output / SUMMARY
        with suppress(OSError, ValueError):
            return json.loads(path.read_text(encoding="utf-8"))
        failed = sorted(name for name in os.listdir(self._failed) if name.endswith(".jsonl") and name[0] != ".")
        lines = [(self._failed / name).read_bytes() for name in failed]
        atomic_write(self.output / FAILURES, lambda file: file.writelines(lines))
        images = detections = 0
        for name in filter(PART.fullmatch, os.listdir(self._folder)):
            found = _count(self._folder / name)
            images, detections = images + found[0], detections + found[1]
        summary = {
            "images": images,
            "failures": sum(data.count(b"\n") for data in lines),
            "detections": detections,
            "parts": sum(len(unit.numbers) for unit in done.values()),
        }
        write_json(path, summary)
        return summary


def _write_lines(rows: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    for row in rows:
        file.write(json.dumps(row).encode("ascii") + b"\n")


def _parquet_writer() -> Callable[[Sequence[Mapping[str, Any]], IO[bytes]], None]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            f"--format parquet needs the package pyarrow, which cannot be imported ({error}): pip install "
            "'se_det[cloud]', or take --format jsonl."
        ) from error
    rle = pyarrow.struct([("size", pyarrow.list_(pyarrow.int32())), ("counts", pyarrow.string())])
    # Boxes and scores are float32 in the detector: nothing is lost.
    detection = pyarrow.struct([
        ("category_id", pyarrow.int64()), ("bbox", pyarrow.list_(pyarrow.float32())), ("score", pyarrow.float32()),
        ("segmentation", rle),
    ])  # fmt: skip
    schema = pyarrow.schema([
        ("image", pyarrow.string()), ("width", pyarrow.int32()), ("height", pyarrow.int32()),
        ("detections", pyarrow.list_(detection)),
    ])  # fmt: skip

    def write(rows: Sequence[Mapping[str, Any]], file: IO[bytes]) -> None:
        # Names of files may be no Unicode, and Parquet's text is.
        named = [{**row, "image": _unicode(row["image"])} for row in rows]
        parquet.write_table(pyarrow.Table.from_pylist(named, schema=schema), file)

    return write


def _unicode(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _count(path: Path) -> tuple[int, int]:
    """Images and detections in a part."""
    if path.suffix == ".parquet":
        from pyarrow import compute, parquet

        table = parquet.read_table(path, columns=["detections"])
        return table.num_rows, compute.sum(compute.list_value_length(table["detections"])).as_py() or 0
    images = detections = 0
    with open(path, "rb") as file:
        for line in file:
            images, detections = images + 1, detections + line.count(b'"category_id": ')
    return images, detections
