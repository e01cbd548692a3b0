"""OpenVINO files, quantised by NNCF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...inference.runtimes import METADATA_KEY
from ..quiet import quiet
from .marks import as_int8
from .registry import QUANTISERS

WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")


@QUANTISERS.register(name=".xml")
class OpenVinoQuantiser:
    """See `QUANTISERS`.

    Quantised are layers with weights, and the sums and products of maps between them; never what works on pixels, boxes
    and scores.
    """

    packages = ("nncf", "openvino")
    install = 'pip install "se_det[openvino]"'

    def __init__(self, source: Path, images: Sequence[Sequence[np.ndarray]]) -> None:
        with quiet("nncf", "torch.utils.cpp_extension"):
            import nncf
        import openvino

        self._nncf, self._openvino = nncf, openvino
        self._source, self._images = source, images
        model = self._openvino.Core().read_model(source)
        self._weighted = {}
        for op in model.get_ops():
            name = _weight_of(op) if op.get_type_name() in WEIGHTED else None
            if name is not None:
                self._weighted[op.get_friendly_name()] = name
        self.layers = list(dict.fromkeys(self._weighted.values()))

    def write(self, path: Path, kept: Sequence[str]) -> None:
        """Write .xml and .bin with the layers of these names left in float32."""
        nncf = self._nncf
        model = self._openvino.Core().read_model(self._source)
        between = _between(model, set(self._weighted))
        ignored = []
        for op in model.get_ops():
            name, kind = op.get_friendly_name(), op.get_type_name()
            if kind in ("Constant", "Parameter", "Result"):
                continue
            if name in self._weighted:
                if self._weighted[name] in kept:
                    ignored.append(name)
            elif not (kind in ("Add", "Multiply") and name in between and _rank(op) == 4):
                ignored.append(name)
        with quiet("nncf", "torch.utils.cpp_extension"):
            quantised = nncf.quantize(
                model,
                nncf.Dataset(list(self._images), list),
                subset_size=len(self._images),
                preset=nncf.QuantizationPreset.MIXED,
                ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
            )
        kept_facts = model.get_rt_info([METADATA_KEY]).astype(str)
        quantised.set_rt_info(as_int8(kept_facts), [METADATA_KEY])
        self._openvino.save_model(quantised, path, compress_to_fp16=False)


def _weight_of(op: Any) -> str | None:
    """The name of the constant that is an operation's second input, behind whatever turns it; None without one."""
    source = op.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Transpose", "Reshape", "Unsqueeze"):
        source = source.input_value(0).get_node()
    return source.get_friendly_name() if source.get_type_name() == "Constant" else None


def _rank(op: Any) -> int:
    shape = op.output(0).get_partial_shape()
    return shape.rank.get_length() if shape.rank.is_static else 0


def _between(model: Any, weighted: set[str]) -> set[str]:
    """The names of what comes after a layer with weights and before another."""
    after: set[str] = set()
    ops = model.get_ordered_ops()
    for op in ops:
        sources = [value.get_node().get_friendly_name() for value in op.input_values()]
        if any(name in after or name in weighted for name in sources):
            after.add(op.get_friendly_name())
    before: set[str] = set()
    for op in reversed(ops):
        if op.get_friendly_name() in before or op.get_friendly_name() in weighted:
            before |= {value.get_node().get_friendly_name() for value in op.input_values()}
    return after & before
