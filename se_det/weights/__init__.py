"""Weight files: reading them safely, knowing whose they are, and loading them with every key accounted for."""

from .account import Account
from .identity import check_input, identify
from .loading import fit_gates, load_weights
from .reading import read_weights

__all__ = ["Account", "check_input", "fit_gates", "identify", "load_weights", "read_weights"]
