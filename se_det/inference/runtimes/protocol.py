"""What a runtime is, and which there are."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ...errors import WeightsError
from ...registry import Registry

# Under which a file keeps its metadata, as JSON: in ONNX's metadata, OpenVINO's rt_info, a torch.export program's extra
# files, an AOTInductor package's metadata; a TensorRT engine has it in FILE.json beside it.
METADATA_KEY = "se_det"

# By the ending of a file's name: `build(path, device)` -> `Runtime`. `device` is MODEL.DEVICE.
RUNTIMES = Registry("runtime")


class Runtime(Protocol):
    """A file that can be run.

    Attributes:
        metadata: what its exporter wrote of it; `{}` where nothing is there.
        description: what runs it, for a line of the log.
    """

    metadata: dict[str, Any]
    description: str

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, in the order in which they were exported."""
        ...


def is_exported(path: str | Path) -> bool:
    """Whether the ending of the name says that this is an exported network, not a checkpoint."""
    return Path(str(path)).suffix.lower() in RUNTIMES.names()


def open_runtime(path: str | Path, device: str = "cpu") -> Runtime:
    """Load an exported network.

    Raises:
        WeightsError: it is not there or cannot be read, or the package that runs it is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"The exported network {path} is not there.")
    return RUNTIMES.get(path.suffix.lower())(path, device)


def need(package: str, path: Path, install: str) -> ModuleType:
    """Import what runs `path`.

    Raises:
        WeightsError: it is not installed; the sentence has the command.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise WeightsError(f"{path} needs the package {package}, which cannot be imported ({error}): {install}.") from (
            error
        )


def unreadable(path: Path, error: BaseException) -> WeightsError:
    """The sentence for a file that a runtime refuses."""
    return WeightsError(f"{path} cannot be loaded: {reason(error)}. Export it again with this version.")


def reason(error: BaseException) -> str:
    """The first line of an error of someone else's, without its full stop, to be part of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__
