"""A report of a GPU within a number of minutes: its tests, then what is measured, most valuable first.

Each part is a process of its own, which adds a JSON object a line to `results.jsonl` as soon as it knows one, and is
ended when its time is over; `report.md` is written anew after each. So whatever happens, what was found is kept.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import write_text

RESULTS, REPORT, LOG = "results.jsonl", "report.md", "log.txt"
SLACK = 1.5  # times its share of what is left a part may take: most take less
RESERVE = 5.0  # seconds kept for the report itself

logger = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What a part is given.

    Args:
        device: such as "cuda".
        out: the report's folder.
        data: a COCO folder, see `gpu_report_parts.find_data`.
        seconds: how long it has.
    """

    device: str
    out: Path
    data: Path | None
    seconds: float


@dataclass(frozen=True)
class Part:
    """One thing that is found out.

    Args:
        title: for the report.
        run: yields records.
        seconds: its share of the time, beside those of the parts after it.
        least: with less time left than this it is not begun.
    """

    title: str
    run: Callable[[Task], Iterator[Record]]
    seconds: float
    least: float = 20.0


def make_report(
    parts: Mapping[str, Part], command: Sequence[str], *, minutes: float, out: Path, where: Mapping[str, Any]
) -> bool:
    """Run the parts one after another within `minutes`; whether all of them were done.

    Args:
        command: runs one part: its name, `--seconds` and their number are added.
        where: card, versions, and the command that was given, for the report's head.

    Raises:
        ConfigError: `out` holds a report.
    """
    if (out / RESULTS).exists():
        raise ConfigError(f"--out {out} holds a report already: give another folder.")
    out.mkdir(parents=True, exist_ok=True)
    end, complete = time.monotonic() + 60 * minutes - RESERVE, True
    add_record(out, {"part": "machine", **where})
    names = list(parts)
    for name, part in parts.items():
        left = end - time.monotonic()
        waiting = sum(parts[other].seconds for other in names[names.index(name) :])
        record: Record = {"part": name, "status": "left out", "why": f"{max(left, 0):.0f} s were left"}
        if left >= part.least:
            limit = min(left, max(SLACK * left * part.seconds / waiting, part.least))
            record = {"part": name, **_run(name, command, seconds=limit, out=out)}
        complete &= record["status"] == "done"
        add_record(out, record)
        write_text(out / REPORT, as_markdown(read_records(out), parts))
        logger.info("%s: %s", part.title, " ".join(str(v) for k, v in record.items() if k != "part"))
    return complete


def _run(name: str, command: Sequence[str], *, seconds: float, out: Path) -> Record:
    """One part in a process, which is ended with all that it started when its time is over."""
    start, path = time.monotonic(), out / LOG
    with open(path, "a", encoding="utf-8") as log:
        log.write(f"=== {name}\n")
        log.flush()
        process = subprocess.Popen(
            [*command, name, "--seconds", f"{seconds:.0f}"],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    taken = round(time.monotonic() - start, 1)
    if code is None:
        return {"status": "ended", "seconds": taken, "why": "its time was over; what it had found is kept"}
    if code:
        *_, last = (line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip())
        return {"status": "failed", "seconds": taken, "why": f"code {code}: {last[:300]}"}
    return {"status": "done", "seconds": taken}


def run_part(name: str, part: Part, task: Task) -> int:
    """In the part's own process: write what it finds; 1 when it was refused something."""
    try:
        for record in part.run(task):
            add_record(task.out, {"part": name, **record})
    except Exception as error:  # the report goes on, and says why this part did not
        logger.exception("%s failed", name)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def add_record(out: Path, record: Mapping[str, Any]) -> None:
    """One more line of the results, on the disk when this returns."""
    with open(out / RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_records(out: Path) -> list[Record]:
    """All lines that are whole."""
    records = []
    for line in (out / RESULTS).read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # of a process that was ended while it wrote
            continue
    return records


def as_markdown(records: Sequence[Record], parts: Mapping[str, Part]) -> str:
    """The report to read."""
    where = next((r for r in records if r["part"] == "machine"), {})
    lines = ["# What was measured", "", *(f"- {k}: {v}" for k, v in where.items() if k != "part")]
    for name, part in parts.items():
        own = [r for r in records if r["part"] == name]
        if not own:
            continue
        lines += ["", f"## {part.title}", ""]
        rows = [r for r in own if "way" in r]
        if rows:
            lines += [
                "| measured | way | images/s | ms per turn | time ratio | peak MiB |",
                "|---|---|---|---|---|---|",
            ]
            lines += [_row(r) for r in rows]
        for r in own:
            if "way" not in r:
                lines += _text({k: v for k, v in r.items() if k != "part"})
    return "\n".join(lines) + "\n"


def _row(r: Record) -> str:
    if "error" in r:
        return f"| {r['measured']} | {r['way']} | {r['error']} | | | |"
    ratio = f"{r['time_ratio']:.3f} ({r['lowest_ratio']:.3f} to {r['highest_ratio']:.3f})"
    peak = f"{r['peak_mib']:.0f}" if "peak_mib" in r else ""
    rate = next((f"{v:.4g}" for k, v in r.items() if k.endswith("_per_second")), "")
    return f"| {r['measured']} | {r['way']} | {rate} | {1e3 * r['seconds']:.2f} | {ratio} | {peak} |"


def _text(values: Mapping[str, Any]) -> list[str]:
    """A record that is no row: its plain values in a line, and its lists below."""
    plain = {k: v for k, v in values.items() if not isinstance(v, (list, dict))}
    said = [f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in plain.items()]
    lines = [f"- {', '.join(said)}"] if said else []
    for name, value in values.items():
        items = value.items() if isinstance(value, dict) else enumerate(value, 1) if isinstance(value, list) else ()
        lines += [f"  - {name} {key}: {item}" for key, item in items]
    return lines
