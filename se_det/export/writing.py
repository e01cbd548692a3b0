"""Writing an exported network: the file is run and compared with PyTorch before it gets its name."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import torch

from ..errors import CheckpointError, ExportError, WeightsError
from ..files import check_writable, replace_together
from ..inference.runtimes import open_runtime, reason
from .formats import COMPILED, FORMATS
from .networks import Exportable
from .quiet import quiet

TOLERANCE = 1e-4  # of the largest value of an output, or of 1
BESIDE = {".xml": ".bin"}  # what a format writes besides, under the same name
EXPORTERS_LOGS = ("torch.onnx", "torch.export", "torch._inductor", "onnxscript", "onnx_ir")

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
        CheckpointError: the file cannot be written; see `check_place`.
    """
    path = Path(path)
    endings = [name for name in FORMATS.names() if name != COMPILED]
    if path.suffix not in endings:
        raise ExportError(f"{path} has an unknown ending: use {', '.join(endings[:-1])} or {endings[-1]}.")
    if compiled and path.suffix != ".pt2":
        raise ExportError(f"{path} cannot be compiled: only a .pt2 can.")
    check_place(path)
    with tempfile.TemporaryDirectory(prefix="se_det_export_") as folder, quiet(*EXPORTERS_LOGS):
        made = Path(folder) / path.name
        try:
            FORMATS.get(COMPILED if compiled else path.suffix)(network, made)
        except ExportError:
            raise
        except Exception as error:  # of many kinds, most of them private to the exporters
            raise ExportError(f"The network cannot be exported: {reason(error)}.") from error
        difference = compare(network, made, path)
        place(made, path)
    return difference


def check_place(path: Path) -> None:
    """See that a file can be written, before the work whose result it is.

    Raises:
        CheckpointError: its folder cannot be written, it is itself a folder, or what is written besides would replace a
            file of something else's.
    """
    check_writable(path.parent)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, and a file is to be written there. Give another --output.")
    beside = path.with_suffix(BESIDE.get(path.suffix, path.suffix))
    if beside.exists() and not path.exists():
        raise CheckpointError(
            f"{beside} would be replaced, as it belongs to {path.name}; that is not there, so it may be something "
            "else's. Move it away, or give another --output."
        )


def place(made: Path, path: Path) -> None:
    """Put a file that was made, with all that is beside it in its folder, at its place; the file itself last."""
    parts = sorted(made.parent.iterdir(), key=lambda part: part == made)
    replace_together({path.with_name(part.name): part.read_bytes() for part in parts})


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
