"""Detectors of 8-bit whole numbers, by post-training quantisation with images of the data."""

from . import onnx, openvino
from .registry import QUANTISERS
from .search import Quantised, quantise

__all__ = ["QUANTISERS", "Quantised", "onnx", "openvino", "quantise"]
