"""Which Detectron2 is installed, and whether this version of se_det was tested with it."""

from __future__ import annotations

import importlib

from ..errors import ConfigError

# Version numbers that the tests ran with; 0.6 is also what the main branch calls itself (commit 02b5c4e).
TESTED = ("0.6",)
GUIDE = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


def check_detectron2() -> str:
    """The version of the installed Detectron2.

    Raises:
        ConfigError: it is not installed, cannot be imported, or is one that was not tested.
    """
    try:
        version = importlib.import_module("detectron2").__version__
    except ImportError as error:
        raise ConfigError(
            f"Detectron2 is not installed ({error}): install it as {GUIDE} says, or use the builtin engine, which "
            "needs none of it."
        ) from error
    if version not in TESTED:
        raise ConfigError(
            f"Detectron2 {version} was not tested with this version of se_det, which works with "
            f"{' and '.join(TESTED)} (its main branch): install that as {GUIDE} says, or use the builtin engine."
        )
    try:
        importlib.import_module("detectron2._C")
    except ImportError as error:
        raise ConfigError(
            f"Detectron2's compiled part cannot be loaded ({error}): build it again with the PyTorch that is installed "
            f"now, as {GUIDE} says."
        ) from error
    return version
