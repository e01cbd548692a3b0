"""The formats that networks are exported to: one file each."""

from . import onnx, openvino, torch_program
from .registry import COMPILED, FORMATS

__all__ = ["COMPILED", "FORMATS", "onnx", "openvino", "torch_program"]
