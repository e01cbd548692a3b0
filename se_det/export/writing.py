"""Writing an exported network: the file is run and compared with PyTorch before it gets its name."""

from __future__ import annotations

import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ExportError
from ..files import atomic_write
from .networks import Exportable, random_images

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SUFFIXES = (".onnx", ".pt2")
TOLERANCE = 1e-4  # of the largest value of an output, or of 1
METADATA_KEY = "se_det.json"  # the extra file of a .pt2, and the key in ONNX's metadata, that hold the metadata as JSON
INSTALL = 'pip install "se_det[export]"'

logger = logging.getLogger(__name__)


def write(network: Exportable, path: str | Path) -> float | None:
    """Export `network` to `.onnx`, or to `.pt2` for `torch.export.load`.

    Returns:
        The largest difference between the outputs of the file and of PyTorch over all of `network.shapes` (see
        `largest_difference`); None for ONNX if onnxruntime is not installed.

    Raises:
        ExportError: the suffix is unknown, a package is missing, the network cannot be exported, or the exported
            file computes something else. Nothing is written then.
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ExportError(f"{path} has an unknown ending: use {' or '.join(SUFFIXES)}.")
    if path.suffix == ".onnx":
        _require("onnx", "onnxscript")
    program = trace(network)
    data = _as_onnx(network, program) if path.suffix == ".onnx" else _as_program(network, program)
    difference = _difference(network, data, path.suffix)
    if difference is not None and not difference <= TOLERANCE:
        raise ExportError(
            f"{path} is not written: its outputs would differ from PyTorch's by {difference:.2g} of their largest "
            f"value, and at most {TOLERANCE:g} is rounding. Please report it with the network's name and the versions "
            "that `se-det doctor` prints."
        )
    atomic_write(path, lambda file: file.write(data))
    return difference


@torch.no_grad()
def trace(network: Exportable) -> ExportedProgram:
    """Trace the network to a graph of PyTorch operations.

    Raises:
        ExportError: the network has control flow that depends on values, so it cannot be traced.
    """
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    try:
        with _quiet():
            return torch.export.export(
                network.module,
                (random_images(network.shapes[0]),),
                dynamic_shapes=(free if network.dynamic else None,),
                strict=False,
            )
    except Exception as error:  # of many kinds, most of them private to PyTorch
        raise ExportError(f"The network cannot be exported: {_first_line(error)}") from error


def _as_onnx(network: Exportable, program: ExportedProgram) -> bytes:
    try:
        with _quiet():
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=["images"], output_names=list(network.outputs)
            )
    except Exception as error:
        raise ExportError(f"The network cannot be written as ONNX: {_first_line(error)}") from error
    model = made.model_proto
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(dict(network.metadata)))
    return model.SerializeToString()


def _as_program(network: Exportable, program: ExportedProgram) -> bytes:
    file = io.BytesIO()
    with _quiet():
        torch.export.save(program, file, extra_files={METADATA_KEY: json.dumps(dict(network.metadata))})
    return file.getvalue()


@torch.no_grad()
def _difference(network: Exportable, data: bytes, suffix: str) -> float | None:
    if suffix == ".onnx":
        try:
            runtime: Any = importlib.import_module("onnxruntime")
        except ImportError:
            logger.warning("onnxruntime is not installed, so the file is not compared with PyTorch: %s.", INSTALL)
            return None
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])

        def outputs(images: torch.Tensor) -> list[torch.Tensor]:
            return [torch.from_numpy(v) for v in session.run(None, {"images": images.numpy()})]
    else:
        with _quiet():
            loaded = torch.export.load(io.BytesIO(data)).module()

        def outputs(images: torch.Tensor) -> list[torch.Tensor]:
            return _several(loaded(images))

    largest = 0.0
    for shape in network.shapes:
        images = random_images(shape)
        largest = max(largest, network.difference(_several(network.module(images)), outputs(images)))
    return largest


def _several(found: torch.Tensor | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [found] if isinstance(found, torch.Tensor) else list(found)


def _require(*packages: str) -> None:
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ExportError(f"ONNX files need the package {package}, which is not installed: {INSTALL}.") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0].rstrip('.')[:300] if lines else type(error).__name__}."


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings and logs about their own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
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
