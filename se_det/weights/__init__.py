"""Weight files: the zoo, downloads, reading them safely, and loading with every key accounted for."""

from .account import Account
from .identity import identify
from .loading import fit_gates, load_weights
from .models import create_model
from .reading import read_weights
from .settle import settle_as_saved, settle_weights
from .source import resolve_weights
from .zoo import get_entry, list_weights

__all__ = [
    "Account",
    "create_model",
    "fit_gates",
    "get_entry",
    "identify",
    "list_weights",
    "load_weights",
    "read_weights",
    "resolve_weights",
    "settle_as_saved",
    "settle_weights",
]
