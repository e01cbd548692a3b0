"""What one training step spends its time on, from PyTorch's trace of it: kernels, gaps, waits and copies."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ..device import wait_for

STEP = "the step"
# Categories of a trace's events: what the device does, and the host's calls that wait for it or ask it for copies.
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
ON_CPU = ("cpu_op",)  # in place of a device
WAITS = ("Synchronize",)
LISTED = 15  # kernels, by their time


def profile_step(step: Callable[[], object], device: torch.device, trace: Path) -> dict[str, Any]:
    """Run `step` once under the profiler, see `summarise`.

    Args:
        trace: a `.json.gz` that chrome://tracing and Perfetto show.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    wait_for(device)
    with profile(activities=activities) as profiler, record_function(STEP):
        step()
        wait_for(device)
    profiler.export_chrome_trace(str(trace))
    with gzip.open(trace, "rt") as file:
        events = json.load(file)["traceEvents"]
    return summarise(events, ON_DEVICE if device.type == "cuda" else ON_CPU)


def summarise(events: Sequence[Mapping[str, Any]], on_device: Sequence[str]) -> dict[str, Any]:
    """Milliseconds and counts of the part of a trace that is within `STEP`.

    Args:
        events: of Chrome's trace format; times in microseconds.
        on_device: the categories of what the device does.

    Returns:
        `step_ms`; `kernels` and `kernel_ms` with their sum; `busy_ms`, in which the device does anything, and the
        `idle_share` of the step; `waits` and `wait_ms` of the host; `copies` by direction; the `largest` kernels.
    """
    timed = [e for e in events if e.get("ph") == "X" and "dur" in e]
    (step,) = [e for e in timed if e["name"] == STEP and e.get("cat") == "user_annotation"]
    first, last = float(step["ts"]), float(step["ts"]) + float(step["dur"])
    inside = [e for e in timed if first <= float(e["ts"]) <= last and e is not step]
    device = [e for e in inside if e.get("cat") in on_device]
    kernels = [e for e in device if e["cat"] in ("kernel", *ON_CPU)]
    waits = [e for e in inside if e.get("cat") == "cuda_runtime" and any(word in e["name"] for word in WAITS)]
    busy = _union([(float(e["ts"]), min(float(e["ts"]) + float(e["dur"]), last)) for e in device])
    by_name: dict[str, list[float]] = defaultdict(list)
    for e in kernels:
        by_name[e["name"]].append(float(e["dur"]) / 1e3)
    copies: dict[str, dict[str, float]] = {}
    for e in device:
        if e["cat"] == "gpu_memcpy":
            one = copies.setdefault(e["name"], {"count": 0, "ms": 0.0, "mib": 0.0})
            one["count"] += 1
            one["ms"] += float(e["dur"]) / 1e3
            one["mib"] += float(e.get("args", {}).get("bytes", 0)) / 2**20
    ranked = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:LISTED]
    return {
        "step_ms": (last - first) / 1e3,
        "kernels": len(kernels),
        "kernel_ms": sum(map(sum, by_name.values())),
        "busy_ms": busy / 1e3,
        "idle_share": 1 - busy / (last - first),
        "waits": len(waits),
        "wait_ms": sum(float(e["dur"]) for e in waits) / 1e3,
        "copies": copies,
        "largest": [{"name": name[:120], "count": len(ms), "ms": sum(ms)} for name, ms in ranked],
    }


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """The length of what intervals cover together."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered
