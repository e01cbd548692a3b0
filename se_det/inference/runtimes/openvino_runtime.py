"""OpenVINO's .xml with the .bin beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .protocol import METADATA_KEY, RUNTIMES, need, unreadable


@RUNTIMES.register(name=".xml")
class OpenVinoRuntime:
    """See `Runtime`. Computes in the precision that the metadata names (float32 without): OpenVINO by itself would take
    bfloat16 where the processor has it, in which whole sizes and grey levels are no longer exact."""

    def __init__(self, path: Path, device: str) -> None:
        import torch

        openvino = need("openvino", path, 'pip install "se_det[openvino]"')
        core = openvino.Core()
        name = "GPU" if device != "cpu" and "GPU" in core.available_devices else "CPU"
        try:
            model = core.read_model(path)
            kept = model.get_rt_info([METADATA_KEY]).astype(str) if model.has_rt_info([METADATA_KEY]) else ""
            self.metadata = json.loads(kept) if kept else {}
            hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            if name == "CPU":
                hints["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
            self._compiled = core.compile_model(model, name, hints)
        except Exception as error:  # RuntimeError mostly, with a trace of its own source lines
            raise unreadable(path, error) from error
        self._outputs = list(self._compiled.outputs)
        self.description = f"OpenVINO {openvino.__version__.split('-')[0]}, {name}"

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, in the order in which they were exported."""
        found = self._compiled(list(inputs))
        return [found[output] for output in self._outputs]
