"""Writing an exported network: the file is run and compared with PyTorch before it gets its name."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ..errors import ExportError, WeightsError
from ..files import atomic_write, check_writable
from ..inference.runtimes import open_runtime, reason
from .formats import COMPILED, FORMATS
from .networks import Exportable

TOLERANCE = 1e-4  # of the largest value of an output, or of 1

logger = logging.getLogger(__name__)


def write(network: Exportable, path: str | Path, *, compiled: bool = False) -> float | None:
    """Export `network` to the format that the ending of `path` names: `.onnx`, OpenVINO's `.xml` (with a `.bin`), or
    `.pt2` for `torch.export.load`.

    Args:
        compiled: a `.pt2` is compiled by AOTInductor, for processors like this machine's.

    Returns:
        The largest difference between the outputs of the file and of PyTorch over all of `network.shapes` (see
        `Exportable.differences`); None if the package that runs the file is not installed.

    Raises:
        ExportError: the suffix is unknown, a package is missing, the network cannot be exported, or the exported
            file computes something else. Nothing is written then.
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    endings = [name for name in FORMATS.names() if name != COMPILED]
    if path.suffix not in endings:
        raise ExportError(f"{path} has an unknown ending: use {', '.join(endings[:-1])} or {endings[-1]}.")
    if compiled and path.suffix != ".pt2":
        raise ExportError(f"{path} cannot be compiled: only a .pt2 can.")
    check_writable(path.parent)
    with tempfile.TemporaryDirectory(prefix="se_det_export_") as folder, _quiet():
        made = Path(folder) / path.name
        try:
            FORMATS.get(COMPILED if compiled else path.suffix)(network, made)
        except ExportError:
            raise
        except Exception as error:  # of many kinds, most of them private to the exporters
            raise ExportError(f"The network cannot be exported: {reason(error)}.") from error
        difference = compare(network, made, path)
        # What the named file refers to comes first.
        for part in sorted(Path(folder).iterdir(), key=lambda part: part == made):
            data = part.read_bytes()
            atomic_write(path.with_name(part.name), lambda file, data=data: file.write(data))
    return difference


@torch.no_grad()
def compare(network: Exportable, made: Path, path: Path) -> float | None:
    """The largest difference between a file's outputs and PyTorch's; None where nothing can run the file here.

    Args:
        path: what the file `made` is to be called.

    Raises:
        ExportError: its runtime does not load it, fails, or gives something else.
    """
    others = [name for name in FORMATS.names() if name not in (COMPILED, path.suffix)]
    remedy = (
        f"Export another kind of file ({' or '.join(others)}), and please report this with what `se-det doctor` prints."
    )
    try:
        runtime = open_runtime(made)
    except WeightsError as error:
        cause = error.__cause__ or error
        if not isinstance(cause, ImportError):
            raise ExportError(
                f"{path} is not written, as what was made cannot be loaded: {reason(cause)}. {remedy}"
            ) from error
        logger.warning("The file is not compared with PyTorch: %s", error)
        return None
    largest = 0.0
    for shape in network.shapes:
        inputs = network.make_inputs(shape)
        ours = (network.reference or network.module)(*inputs)
        ours = [ours] if isinstance(ours, torch.Tensor) else list(ours)
        try:
            theirs = [torch.from_numpy(np.array(v)) for v in runtime.run([one.numpy() for one in inputs])]
        except Exception as error:  # of many kinds, all the runtime's own
            raise ExportError(
                f"{path} is not written, as {runtime.description} fails at images of {tuple(shape)}: {reason(error)}. "
                f"{remedy}"
            ) from error
        if len(theirs) != len(ours):
            raise ExportError(
                f"{path} is not written, as it has {len(theirs)} outputs in {runtime.description} and {len(ours)} in "
                f"PyTorch. {remedy}"
            )
        for name, difference in network.differences(network.outputs, ours, theirs).items():
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"{path} is not written: in {runtime.description} its output '{name}' would differ from PyTorch's "
                    f"by {difference:.2g} of its largest value, and at most {TOLERANCE:g} is rounding. {remedy}"
                )
            largest = max(largest, difference)
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings and logs about their own internals."""
    names = ("torch.onnx", "torch.export", "torch._inductor", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels):
                each.setLevel(level)
