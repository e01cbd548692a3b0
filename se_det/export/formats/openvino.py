"""OpenVINO's .xml and .bin, by way of ONNX."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ...inference.runtimes import METADATA_KEY
from ..networks import Exportable
from .onnx import write_onnx
from .registry import FORMATS, require


@FORMATS.register(name=".xml")
def write_openvino(network: Exportable, path: Path) -> None:
    """Write both, with the metadata."""
    openvino = require("OpenVINO files", 'pip install "se_det[openvino]"', "openvino")
    with tempfile.TemporaryDirectory(prefix="se_det_export_") as folder:
        between = Path(folder) / "network.onnx"
        write_onnx(network, between)
        model = openvino.convert_model(between)
        model.set_rt_info(json.dumps(dict(network.metadata)), [METADATA_KEY])
        openvino.save_model(model, path, compress_to_fp16=False)
