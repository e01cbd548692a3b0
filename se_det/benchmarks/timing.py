"""Measuring several ways of doing one thing in turns, so that whatever else the machine does is shared out."""

from __future__ import annotations

import gc
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from ..device import peak_device_memory_mib, wait_for
from ..errors import SeDetError
from ..system import cpu_fields, peak_memory_mib


@dataclass(frozen=True)
class Comparison:
    """Seconds of several ways of doing the same, in the order they were taken.

    Args:
        name: what is done.
        seconds: way to the seconds of each turn; turn i of all ways ran one after another.
        baseline: the way that the ratios refer to.
        peak_mib: way to the most memory, where it was measured.
        amount: what is done in one turn, in `unit`, for a rate.
        figures: way to other numbers by name, such as its AP.
    """

    name: str
    seconds: Mapping[str, list[float]]
    baseline: str
    peak_mib: Mapping[str, float] = field(default_factory=dict)
    amount: float = 1.0
    unit: str = "images"
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def ratios(self, way: str) -> list[float]:
        """Time of `way` over that of the baseline, turn by turn."""
        return [mine / theirs for mine, theirs in zip(self.seconds[way], self.seconds[self.baseline])]

    def rows(self) -> list[dict[str, float | str]]:
        """One record a way: medians with their spread, for a table, JSON or CSV."""
        records = []
        for way, seconds in self.seconds.items():
            ratios = self.ratios(way)
            record: dict[str, float | str] = {
                "measured": self.name,
                "way": way,
                "seconds": statistics.median(seconds),
                "fastest": min(seconds),
                "slowest": max(seconds),
                f"{self.unit}_per_second": self.amount / statistics.median(seconds),
                "baseline": self.baseline,
                "time_ratio": statistics.median(ratios),
                "lowest_ratio": min(ratios),
                "highest_ratio": max(ratios),
            }
            if way in self.peak_mib:
                record["peak_mib"] = self.peak_mib[way]
                if self.baseline in self.peak_mib:
                    record["memory_ratio"] = self.peak_mib[way] / self.peak_mib[self.baseline]
            record.update(self.figures.get(way, {}))
            records.append(record)
        return records

    def table(self) -> list[str]:
        """Lines of text to read."""
        width = max(len(way) for way in self.seconds)
        lines = [f"{self.name} (baseline: {self.baseline})"]
        for row in self.rows():
            line = (
                f"  {row['way']:{width}s}  {row['seconds']:9.4f} s ({row['fastest']:.4f} to {row['slowest']:.4f})"
                f"  {row[f'{self.unit}_per_second']:9.4g} {self.unit}/s"
                f"  x {row['time_ratio']:.3f} ({row['lowest_ratio']:.3f} to {row['highest_ratio']:.3f})"
            )
            if "peak_mib" in row:
                line += f"  {row['peak_mib']:7.0f} MiB"
            if "memory_ratio" in row:
                line += f"  x {row['memory_ratio']:.3f}"
            line += "".join(f"  {name} {value:.2f}" for name, value in self.figures.get(row["way"], {}).items())
            lines.append(line)
        return lines


def time_alternately(
    ways: Mapping[str, Callable[[], object]], *, repeat: int, device: torch.device | str = "cpu", warm_up: int = 1,
    context: Mapping[str, Callable[[], AbstractContextManager]] | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds of each way, `repeat` turns; in every other turn in reverse order.

    Args:
        warm_up: turns before them that are not counted.
        context: by way, what is entered before each of its turns and left after it, outside the measured time.
    """
    device, context = torch.device(device), context or {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + repeat):
        names = list(ways) if turn % 2 else list(reversed(ways))
        for name in names:
            gc.collect()
            with context.get(name, nullcontext)():
                wait_for(device)
                start = time.perf_counter()
                ways[name]()
                wait_for(device)
                spent = time.perf_counter() - start
            if turn >= warm_up:
                seconds[name].append(spent)
    return seconds


def time_processes_alternately(
    ways: Mapping[str, tuple[Callable[..., Callable[[], object]], tuple]], *, repeat: int, device: str = "cpu"
) -> tuple[dict[str, list[float]], dict[str, float], dict[str, object]]:
    """Like `time_alternately`, each way in a process of its own: peak memory, libraries and settings are its own too.

    Args:
        ways: name to (factory, arguments), both picklable; `factory(*arguments)` returns what is run in every turn.

    Returns:
        Seconds of each way; MiB that each had at the most above what its process had before the factory; what each
        returned last.

    Raises:
        SeDetError: what a factory or a run was refused with.
    """
    context = multiprocessing.get_context("spawn")
    workers = {}
    try:
        for name, (factory, args) in ways.items():
            here, there = context.Pipe()
            process = context.Process(
                target=_work, args=(there, factory, args, device, torch.get_num_threads()), daemon=True
            )
            process.start()
            there.close()
            workers[name] = (process, here)
            _answer(name, here)
        seconds = time_alternately(
            {name: partial(_turn, name, here) for name, (_, here) in workers.items()}, repeat=repeat
        )
        ends = {}
        for name, (_, here) in workers.items():
            here.send("end")
            ends[name] = _answer(name, here)
        peaks, results = ({name: end[part] for name, end in ends.items()} for part in (0, 1))
        return seconds, peaks, results
    finally:
        for process, _ in workers.values():
            process.terminate()


def _turn(name: str, pipe: Connection) -> None:
    pipe.send("run")
    _answer(name, pipe)


def _answer(name: str, pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except EOFError:
        raise SeDetError(f"The process that measures '{name}' was ended; was the memory full?") from None
    if isinstance(answer, SeDetError):
        raise answer
    return answer


def _work(
    pipe: Connection, factory: Callable[..., Callable[[], object]], args: tuple, device: str, threads: int
) -> None:
    """Run when told to, until told to end."""
    torch.set_num_threads(threads)
    last = None
    try:
        before = peak_memory_mib()
        run = factory(*args)
        pipe.send("ready")
        while pipe.recv() == "run":
            last = run()
            wait_for(torch.device(device))
            pipe.send("done")
        peak = peak_device_memory_mib(torch.device(device))
        if peak is None:
            peak = peak_memory_mib() - before
        pipe.send((peak, last))
    except SeDetError as error:
        pipe.send(error)


def machine(device: torch.device | str = "cpu") -> dict[str, str | int]:
    """What a figure depends on: processor, threads and versions."""
    import torchvision

    where = torch.device(device)
    return {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else f"CPU, {_processor()}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def _processor() -> str:
    """The processor's name, with the instructions that decide how fast bfloat16 is."""
    fields = cpu_fields()
    flags = set(fields.get("flags", "").split())
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return " ".join([fields.get("model name") or platform.processor() or platform.machine(), *known])
