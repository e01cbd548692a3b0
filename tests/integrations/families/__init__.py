"""Families of models that Detectron2 has, too: one file each, with its `FAMILY`. See `family.py`."""

import importlib
import pkgutil

from .family import Family

FAMILIES: dict[str, Family] = {}
for _found in pkgutil.iter_modules(__path__):
    _family = getattr(importlib.import_module(f"{__name__}.{_found.name}"), "FAMILY", None)
    if _family is not None:
        FAMILIES[_found.name] = _family
