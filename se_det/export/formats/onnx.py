"""ONNX, of opset 18."""

from __future__ import annotations

import json
from pathlib import Path

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
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(dict(network.metadata)))
    path.write_bytes(model.SerializeToString())
