"""ONNX, of opset 18."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ...inference.runtimes import METADATA_KEY
from .. import nms
from ..networks import Exportable
from .registry import FORMATS, require, trace

OPSET = 18


@FORMATS.register(name=".onnx")
def write_onnx(network: Exportable, path: Path) -> None:
    """Write it with its metadata."""
    require("ONNX files", 'pip install "se_det[export]"', "onnx", "onnxscript")
    with nms.kept_as_operator():
        program = trace(network)
    made = torch.onnx.export(
        program, dynamo=True, verbose=False, opset_version=OPSET, input_names=list(network.inputs),
        output_names=list(network.outputs), custom_translation_table={nms.OPERATOR: nms.as_onnx},
    )  # fmt: skip
    model = made.model_proto
    _forget_shapes(model.graph, network)
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(dict(network.metadata)))
    path.write_bytes(model.SerializeToString())


def _forget_shapes(graph: Any, network: Exportable) -> None:
    """Leave out the shapes of what is between, and name the free axes anew: two numbers that only a run knows may have
    got one name, by which ONNX Runtime takes one buffer for both."""
    del graph.value_info[:]
    names = {4: ("batch", "height", "width", "channels"), 2: ("batch", "side")}
    for value, free in zip(graph.input, network.free):
        shape = value.type.tensor_type.shape.dim
        for axis in free:
            order = names[len(shape)] if len(free) == 1 or 3 not in free else ("batch", "channels", "height", "width")
            shape[axis].dim_param = order[axis]
    for value in graph.output:
        for axis, length in enumerate(value.type.tensor_type.shape.dim):
            if not length.HasField("dim_value"):
                length.dim_param = "batch" if axis == 0 else f"{value.name}_{axis}"
