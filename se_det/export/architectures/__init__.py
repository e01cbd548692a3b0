"""How each meta-architecture is exported: one file each, which registers its own."""

import importlib
import pkgutil

from .registry import EXPORTERS, Found, GraphDetector

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["EXPORTERS", "Found", "GraphDetector"]
