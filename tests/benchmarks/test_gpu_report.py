"""The report of a GPU: parts that fail, hang or come too late do not end it, and a trace is read as it is written."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest
import torch

from se_det.benchmarks.gpu_report import Part, Task, add_record, as_markdown, make_report, read_records, run_part
from se_det.benchmarks.gpu_report_parts import PARTS
from se_det.benchmarks.gpu_report_turns import compare
from se_det.benchmarks.step_profile import ON_CPU, ON_DEVICE, STEP, profile_step, summarise
from se_det.errors import ConfigError

# What the parts do: `script PART --seconds N`.
SCRIPT = """
import json, sys, time
name = sys.argv[1]
with open({out!r} + "/results.jsonl", "a") as file:
    file.write(json.dumps({{"part": name, "found": float(sys.argv[3])}}) + "\\n")
if name == "hangs":
    time.sleep(60)
if name == "fails":
    sys.exit("out of everything")
"""


def report(tmp_path: Path, parts: dict[str, Part], minutes: float) -> tuple[bool, list[dict], str]:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT.format(out=str(out)))
    complete = make_report(parts, [sys.executable, str(script)], minutes=minutes, out=out, where={"device": "toaster"})
    return complete, read_records(out), (out / "report.md").read_text()


def part(seconds: float, least: float = 0.0) -> Part:
    return Part("A part", lambda task: iter(()), seconds=seconds, least=least)


@pytest.mark.slow
def test_a_part_that_fails_or_hangs_or_comes_too_late_is_told_of(tmp_path):
    parts = {"works": part(80), "hangs": part(1, least=10), "fails": part(80), "late": part(80, least=600)}
    complete, records, text = report(tmp_path, parts, minutes=2)
    assert not complete
    status = {r["part"]: r for r in records if "status" in r}
    assert [status[name]["status"] for name in parts] == ["done", "ended", "failed", "left out"]
    assert "out of everything" in status["fails"]["why"] and "s were left" in status["late"]["why"]
    # What a part found before its end is kept; each was told how long it has: half more than its share of what is left.
    found = {r["part"]: r["found"] for r in records if "found" in r}
    assert found.keys() == {"works", "hangs", "fails"} and found["hangs"] == 10
    assert found["works"] == pytest.approx(1.5 * 115 * 80 / 241, abs=2) and found["works"] < found["fails"] < 115
    assert "device: toaster" in text and text.count("## A part") == 4 and "out of everything" in text


def test_a_report_is_not_written_over_another(tmp_path):
    assert report(tmp_path, {"works": part(10)}, minutes=1)[0]
    with pytest.raises(ConfigError, match="holds a report already"):
        report(tmp_path, {"works": part(10)}, minutes=1)


def test_a_part_writes_what_it_finds_as_it_comes(tmp_path, capsys):
    def run(task):
        yield {"value": 1}
        raise RuntimeError("no more memory")

    task = Task("cpu", tmp_path, None, 10)
    assert run_part("some", Part("Some", run, seconds=1), task) == 1
    assert read_records(tmp_path) == [{"part": "some", "value": 1}]
    assert "RuntimeError: no more memory" in capsys.readouterr().err
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"part": "so')  # of a process that was ended
    assert read_records(tmp_path) == [{"part": "some", "value": 1}]


def test_a_way_that_fails_is_told_of_and_the_others_are_measured():
    def broken():
        raise RuntimeError("CUDA out of memory.\nTried to allocate")

    ways = {"base": broken, "one": lambda: lambda: None, "other": lambda: lambda: None}
    records = list(compare("x", ways, device="cpu", repeat=2, amount=3, baseline="base"))
    assert records[0] == {"measured": "x", "way": "base", "error": "RuntimeError: CUDA out of memory."}
    assert [(r["way"], r["baseline"]) for r in records[1:]] == [("one", "one"), ("other", "one")]
    add = [{"part": "p", **r} for r in records]
    table = as_markdown(add, {"p": part(1)})
    assert "| x | base | RuntimeError: CUDA out of memory. |" in table and table.count("| x | ") == 3


def event(name: str, category: str, start: float, length: float, **more) -> dict:
    return {"ph": "X", "name": name, "cat": category, "ts": start, "dur": length, **more}


def test_a_trace_is_summed_up():
    """A step of 1 ms: kernels at 0.1 to 0.4 and, overlapping, 0.3 to 0.5, a copy at 0.8 to 0.9; all else is outside."""
    events = [
        event(STEP, "user_annotation", 1000, 1000),
        event("gemm", "kernel", 1100, 300), event("gemm", "kernel", 1300, 200), event("gemm", "kernel", 100, 300),
        event("Memcpy HtoD (Pinned -> Device)", "gpu_memcpy", 1800, 100, args={"bytes": 2**21}),
        event("cudaStreamSynchronize", "cuda_runtime", 1500, 250), event("cudaLaunchKernel", "cuda_runtime", 1000, 5),
        event("aten::mm", "cpu_op", 1000, 900), {"ph": "i", "name": "spam", "ts": 1100},
    ]  # fmt: skip
    found = summarise(events, ON_DEVICE)
    assert found == {
        "step_ms": 1.0, "kernels": 2, "kernel_ms": 0.5, "busy_ms": 0.5, "idle_share": 0.5, "waits": 1, "wait_ms": 0.25,
        "copies": {"Memcpy HtoD (Pinned -> Device)": {"count": 1, "ms": 0.1, "mib": 2.0}},
        "largest": [{"name": "gemm", "count": 2, "ms": 0.5}],
    }  # fmt: skip
    assert summarise(events, ON_CPU)["kernel_ms"] == 0.9


def test_a_step_is_profiled(tmp_path):
    x = torch.ones(200, 200)
    found = profile_step(lambda: x @ x, torch.device("cpu"), tmp_path / "trace.json.gz")
    assert any(row["name"] == "aten::mm" and row["count"] == 1 for row in found["largest"])
    assert 0 < found["busy_ms"] <= found["step_ms"]
    with gzip.open(tmp_path / "trace.json.gz", "rt") as file:
        assert json.load(file)["traceEvents"]


def test_the_parts_fit_into_the_time_they_are_meant_for():
    assert next(iter(PARTS)) == "tests"
    assert all(part.least <= part.seconds for part in PARTS.values())


def test_records_are_lines(tmp_path):
    add_record(tmp_path, {"a": 1})
    add_record(tmp_path, {"b": [1, 2]})
    assert (tmp_path / "results.jsonl").read_text() == '{"a": 1}\n{"b": [1, 2]}\n'
