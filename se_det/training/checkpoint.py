"""Checkpoints: written whole or not at all, made of tensors and plain containers, read without running code."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..files import atomic_write, write_text
from ..weights.reading import read_plain

ENGINE = "se_det"
LAST = "last_checkpoint"
FINAL = "model_final"
BEST = "model_best"

logger = logging.getLogger(__name__)


def step_name(step: int) -> str:
    """The name of the checkpoint after `step` steps."""
    return f"model_{step:07d}"


class Checkpointer:
    """The checkpoints of one output folder.

    `last_checkpoint` holds the name of the newest, as in Detectron2.

    Args:
        keep: how many of the newest numbered ones are kept, at least 2, so that a torn one leaves the one before it;
            None keeps all.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int | None = None) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, name: str, state: Mapping[str, Any], *, mark_last: bool = True) -> Path:
        """Write `state` as `<name>.pth`; with `mark_last` it becomes the one to resume from.

        Raises:
            CheckpointError: the folder cannot be written; what was there is intact.
            TypeError: something in `state` is no tensor or plain value, and could not be read back safely.
        """
        _require_plain(state, "checkpoint")
        path = self.folder / f"{name}.pth"
        try:
            atomic_write(path, lambda file: torch.save(state, file))
            if mark_last:
                write_text(self.folder / LAST, path.name)
        except CheckpointError as error:
            before = self._latest_first()
            intact = f" {before[0].name} is intact: make room, then --resume goes on from it." if before else ""
            raise CheckpointError(f"{error}{intact}") from error
        if mark_last:
            self._remove_old()
        return path

    def _remove_old(self) -> None:
        if self.keep is None:
            return
        numbered = sorted(self.folder.glob("model_" + "[0-9]" * 7 + ".pth"))
        for path in numbered[: max(len(numbered) - self.keep, 0)]:
            path.unlink(missing_ok=True)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read, and its content; None where there is none at all.

        Raises:
            CheckpointError: there are some, and none can be read.
        """
        paths = self._latest_first()
        problems = []
        for path in paths:
            try:
                state = load_checkpoint(path)
            except CheckpointError as error:
                problems.append(error)
                logger.warning("%s The one before it is tried.", error)
                continue
            return path, state
        if problems:
            raise CheckpointError(f"No checkpoint in {self.folder} can be read. {problems[0]}")
        return None

    def _latest_first(self) -> list[Path]:
        paths = [p for p in self.folder.glob("model_*.pth") if p.stem != BEST]
        paths.sort(key=_steps, reverse=True)
        try:
            last = self.folder / Path((self.folder / LAST).read_text(encoding="utf-8").strip()).name
        except (OSError, UnicodeDecodeError):
            return paths
        return [last, *(p for p in paths if p != last)] if last.is_file() else paths


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    state = read_plain(path, what="a checkpoint", error=CheckpointError)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it holds a {type(state).__name__}, not a dict.")
    return state


def _steps(path: Path) -> int:
    """How many steps a checkpoint has seen, -1 where that cannot be told."""
    number = re.fullmatch(r"model_(\d+)", path.stem)
    if number:
        return int(number[1])
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["iteration"])
    except Exception:  # damaged, or of another program: the last one to try
        return -1


def _require_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(key, f"key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif not (value is None or isinstance(value, torch.Tensor) or type(value) in (bool, int, float, str)):
        raise TypeError(f"{where} is a {type(value).__name__}; only tensors and plain values can be in a checkpoint.")
