"""ONNX files in ONNX Runtime, on a GPU where its providers are installed and MODEL.DEVICE asks for one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .protocol import METADATA_KEY, RUNTIMES, need, unreadable

GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider")


@RUNTIMES.register(name=".onnx")
class OnnxRuntime:
    """See `Runtime`."""

    def __init__(self, path: Path, device: str) -> None:
        onnxruntime = need("onnxruntime", path, 'pip install "se_det[export]"')
        there = onnxruntime.get_available_providers()
        wanted = [] if device == "cpu" else [name for name in GPU_PROVIDERS if name in there]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings are about its own optimisations
        threads = _threads()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=[*wanted, "CPUExecutionProvider"]
            )
        except Exception as error:  # of many kinds, all its own
            raise unreadable(path, error) from error
        self._names = [value.name for value in self._session.get_inputs()]
        kept = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.metadata = json.loads(kept) if kept else {}
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self.description = f"ONNX Runtime {onnxruntime.__version__}, {provider}"

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, in the order in which they were exported."""
        return self._session.run(None, dict(zip(self._names, inputs)))


def _threads() -> int:
    """As many as PyTorch would take, so that OMP_NUM_THREADS and the like hold for every runtime."""
    import torch

    return torch.get_num_threads()
