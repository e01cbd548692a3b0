"""What runs exported detectors: one file each, chosen by the ending of a file's name."""

from . import onnx_runtime, openvino_runtime, tensorrt_runtime, torch_runtime
from .protocol import METADATA_KEY, RUNTIMES, Runtime, is_exported, open_runtime, reason

__all__ = [
    "METADATA_KEY",
    "RUNTIMES",
    "Runtime",
    "is_exported",
    "onnx_runtime",
    "open_runtime",
    "openvino_runtime",
    "reason",
    "tensorrt_runtime",
    "torch_runtime",
]
