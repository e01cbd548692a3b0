"""TensorRT engines, built from the ONNX file by `trtexec`, with its metadata in FILE.json beside them.

Written from the documentation of TensorRT 10 and not run here: no machine with it was at hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...errors import WeightsError
from .protocol import METADATA_KEY, RUNTIMES, need, unreadable

_TYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "INT64": torch.int64, "INT32": torch.int32,
          "UINT8": torch.uint8, "BOOL": torch.bool}  # fmt: skip


class TensorRT:
    """See `Runtime`."""

    def __init__(self, path: Path, device: str) -> None:
        tensorrt = need("tensorrt", path, "pip install tensorrt, on a machine with a GPU of NVIDIA's")
        if not torch.cuda.is_available():
            raise WeightsError(f"{path} is a TensorRT engine, and PyTorch sees no GPU of NVIDIA's here: use the .onnx.")
        tensorrt.init_libnvinfer_plugins(None, "")
        self._trt = tensorrt
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise unreadable(path, RuntimeError("it was built by another version of TensorRT or for another GPU"))
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        given = tensorrt.TensorIOMode.INPUT
        self._inputs = [name for name in names if self._engine.get_tensor_mode(name) == given]
        self._outputs = [name for name in names if name not in self._inputs]
        beside = path.with_name(path.name + ".json")
        self.metadata = json.loads(beside.read_text(encoding="utf-8"))[METADATA_KEY] if beside.is_file() else {}
        self.description = f"TensorRT {tensorrt.__version__}, {torch.cuda.get_device_name()}"

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, in the order in which they were exported."""
        kept = [torch.from_numpy(np.ascontiguousarray(one)).cuda() for one in inputs]
        for name, one in zip(self._inputs, kept):
            self._context.set_input_shape(name, tuple(one.shape))
            self._context.set_tensor_address(name, one.data_ptr())
        outputs = []
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            kind = _TYPES[self._engine.get_tensor_dtype(name).name]
            outputs.append(torch.empty(shape, dtype=kind, device="cuda"))
            self._context.set_tensor_address(name, outputs[-1].data_ptr())
        stream = torch.cuda.current_stream()
        self._context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return [one.cpu().numpy() for one in outputs]


for _ending in (".engine", ".plan"):
    RUNTIMES.register(TensorRT, name=_ending)
