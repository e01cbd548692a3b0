"""ONNX files, by ONNX Runtime's static quantisation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...inference.runtimes import METADATA_KEY
from ..quiet import quiet
from .marks import as_int8
from .registry import QUANTISERS

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@QUANTISERS.register(name=".onnx")
class OnnxQuantiser:
    """See `QUANTISERS`. Layers with weights are quantised, each output channel by a scale of its own."""

    packages = ("onnx", "onnxruntime")
    install = 'pip install "se_det[export]"'

    def __init__(self, source: Path, images: Sequence[Sequence[np.ndarray]]) -> None:
        import onnx

        self._onnx = onnx
        self._images = images
        self._model = self._onnx.load(source)
        graph = self._model.graph
        constants = {one.name for one in graph.initializer}
        made = {name: node for node in graph.node for name in node.output}
        self._weighted: dict[str, str] = {}
        self._others: list[str] = []
        for node in graph.node:
            if node.op_type not in WEIGHTED:
                continue
            weight = node.input[1]
            while weight in made and made[weight].op_type in ("Transpose", "Reshape", "Identity"):
                weight = made[weight].input[0]
            if weight in constants:
                self._weighted[node.name] = weight
            else:
                self._others.append(node.name)
        self.layers = list(dict.fromkeys(self._weighted.values()))

    def write(self, path: Path, kept: Sequence[str]) -> None:
        """Write it with the layers of these names left in float32."""
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        names = [value.name for value in self._model.graph.input]

        class Images(CalibrationDataReader):
            def __init__(self, images: Sequence[Sequence[np.ndarray]]) -> None:
                self._left = iter(images)

            def get_next(self) -> dict[str, np.ndarray] | None:
                one = next(self._left, None)
                return None if one is None else dict(zip(names, one))

        with tempfile.TemporaryDirectory(prefix="se_det_int8_") as folder, quiet(""):
            source = Path(folder) / "float.onnx"
            self._onnx.save(self._model, source)
            quantize_static(
                source, path, Images(self._images), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=list(WEIGHTED),
                nodes_to_exclude=[*self._others, *(node for node, name in self._weighted.items() if name in kept)],
            )  # fmt: skip
        model = self._onnx.load(path)
        for entry in model.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = as_int8(entry.value)
        self._onnx.save(model, path)
