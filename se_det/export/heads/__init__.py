"""How what RoI heads find is exported: one file for each kind."""

import importlib
import pkgutil

from .registry import BOX_FEATURES, HEADS, GraphHead

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["BOX_FEATURES", "HEADS", "GraphHead"]
