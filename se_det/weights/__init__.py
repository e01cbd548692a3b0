"""Weight files: the zoo, downloads, reading them safely, and loading with every key accounted for."""

from .class_rows import ClassLayout, register_class_rows
from .config_from_weights import open_configured_weights, saved_decisions
from .identify import identify
from .load_report import LoadReport
from .loading import load_weights, resize_gates
from .models import create_model
from .reading import read_weights
from .saved_config import config_of_checkpoint
from .source import resolve_weights
from .zoo import get_entry, list_weights

__all__ = [
    "ClassLayout",
    "LoadReport",
    "config_of_checkpoint",
    "create_model",
    "get_entry",
    "identify",
    "list_weights",
    "load_weights",
    "open_configured_weights",
    "read_weights",
    "register_class_rows",
    "resize_gates",
    "resolve_weights",
    "saved_decisions",
]
