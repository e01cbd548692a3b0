"""Networks as files that run without this package: ONNX, OpenVINO, and programs of torch.export."""

from .architectures import EXPORTERS
from .detector import detector
from .formats import FORMATS
from .networks import Exportable, classifier, pyramid
from .writing import TOLERANCE, write

__all__ = ["EXPORTERS", "FORMATS", "TOLERANCE", "Exportable", "classifier", "detector", "pyramid", "write"]
