"""One run of a study, in a process of its own: it ends, saved, when the study's process does."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from fvcore.common.config import CfgNode
from tqdm import tqdm

from ..errors import Interrupted, SeDetError, Terminated
from ..plugins import load_plugins, plugin_files
from ..terminal import log_to_stdout
from .start import FILE, with_common_start

EVERY = 0.5  # seconds between looks at the memory


class RunFailed(Exception):
    """A run ended with an error, which is told."""


def make_run(kind: str, cfg: CfgNode, first: CfgNode | None, *, resume: bool) -> dict[str, Any]:
    """Train one run and return what it came to: `metrics` by task, `memory_mib` (the peak of the process).

    Args:
        kind: see `Study.kind`.
        cfg: of the run.
        first: of the first row with the same seed, for a common start; None for weights of its own.
        resume: go on from its last checkpoint.

    Raises:
        RunFailed: it ended with an error.
        Terminated: it was asked to end, and is saved.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(kind, cfg, first, resume, plugin_files(), theirs))
    process.start()
    theirs.close()
    try:
        answer = _answer(ours)
    except KeyboardInterrupt:
        _interrupt(process)
        raise
    finally:
        ours.close()
        process.join()
    if answer is None:
        code = process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        memory = ": its memory may have been used up" if code == -9 else ""
        raise RunFailed(f"its process ended with {how}{memory}")
    what, value = answer
    if what == "failed":
        raise RunFailed(value)
    if what == "stopped":
        raise Terminated(f"{value} The same command goes on with the study.")
    return value


def _answer(connection: Connection) -> tuple[str, Any] | None:
    try:
        return connection.recv()
    except EOFError:
        return None


def _interrupt(process: multiprocessing.process.BaseProcess) -> None:
    """Let the run save itself; where Ctrl-C has come from the terminal it does so already."""
    if process.is_alive() and os.name != "nt":
        process.terminate()
    process.join()


def _child(
    kind: str, cfg: CfgNode, first: CfgNode | None, resume: bool, plugins: Sequence[str], connection: Connection
) -> None:
    log_to_stdout(logging.WARNING)
    # The bars' lock between processes, which none shares, would be told of as leaked at the end.
    tqdm.set_lock(threading.RLock())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study's process passes it on
    threading.Thread(target=_leave_with_parent, args=(connection,), daemon=True).start()
    memory = PeakMemory()
    try:
        load_plugins(plugins)
        metrics = _train(kind, cfg, first, resume)
    except (Terminated, Interrupted) as error:
        answer = ("stopped", str(error))
    except SeDetError as error:
        answer = ("failed", str(error))
    else:
        answer = ("done", {"metrics": metrics, "memory_mib": memory.peak()})
    with contextlib.suppress(BrokenPipeError):  # the study's process was ended: what is saved here is found again
        connection.send(answer)


def _train(kind: str, cfg: CfgNode, first: CfgNode | None, resume: bool) -> dict[str, dict[str, Any]]:
    from ..classification.evaluation import TASK
    from ..classification.run import run_pretraining
    from ..training.run import run_training

    start = Path(cfg.OUTPUT_DIR) / FILE
    if first is not None and not resume:
        cfg = with_common_start(kind, cfg, first, start)
    cfg.freeze()
    try:
        if kind == "train":
            return run_training(cfg, resume=resume, overwrite=not resume)
        return {TASK: run_pretraining(cfg, resume=resume, overwrite=not resume)}
    finally:
        start.unlink(missing_ok=True)


def _leave_with_parent(connection: Connection) -> None:
    """Ask the run to save itself and end when nobody is left at the other end."""
    try:
        connection.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)


class PeakMemory:
    """The most memory that this process had at any of regular looks, in MiB."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._most = self._process.memory_info().rss
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(EVERY)
            self._most = max(self._most, self._process.memory_info().rss)

    def peak(self) -> float:
        """So far."""
        return max(self._most, self._process.memory_info().rss) / 2**20
