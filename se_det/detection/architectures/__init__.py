"""Meta-architectures besides GeneralizedRCNN: each module here registers its own, a new one as soon as it is there."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
