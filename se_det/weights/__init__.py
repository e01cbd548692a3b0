"""Weight files: reading them safely, and loading them with every key accounted for."""

from .account import Account
from .loading import load_weights
from .reading import read_weights

__all__ = ["Account", "load_weights", "read_weights"]
