"""What the machine gives this process: CPUs and memory, on every operating system."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_fields() -> dict[str, str]:
    """What Linux tells of a CPU, by its names; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    fields = (line.partition(":")[::2] for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in fields}


def cpu_flags(fields: Mapping[str, str]) -> list[str]:
    """The instruction sets among what `cpu_fields` gives, by x86's or ARM's name of the field."""
    return (fields.get("flags") or fields.get("Features") or "").split()


def peak_memory_mib() -> float:
    """The most of the machine's memory that this process has held, in MiB."""
    try:  # first, as Linux's getrusage also counts the process that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError, ValueError):
        pass
    if resource is not None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    import psutil

    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 2**20  # only Windows tells the peak
