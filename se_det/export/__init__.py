"""Networks as files that run without this package: ONNX, and programs of torch.export."""

from .detector import detector
from .networks import Exportable, classifier, pyramid
from .writing import TOLERANCE, write

__all__ = ["TOLERANCE", "Exportable", "classifier", "detector", "pyramid", "write"]
