"""Weight files: the zoo, downloads, reading them safely, and loading with every key accounted for."""

from .config_from_weights import apply_saved_conventions, apply_weight_conventions
from .identify import identify
from .load_report import LoadReport
from .loading import load_weights, resize_gates
from .models import create_model
from .reading import read_weights
from .source import resolve_weights
from .zoo import get_entry, list_weights

__all__ = [
    "LoadReport",
    "apply_saved_conventions",
    "apply_weight_conventions",
    "create_model",
    "get_entry",
    "identify",
    "list_weights",
    "load_weights",
    "read_weights",
    "resize_gates",
    "resolve_weights",
]
