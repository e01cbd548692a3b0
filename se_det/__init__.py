"""se_det: object detection and instance segmentation with Squeeze-and-Excitation backbones."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Where the public names live. They are imported on first use, so that `se-det --help` does not wait for torch.
_PUBLIC = {
    "list_models": "backbones",
    "create_model": "weights",
    "create_backbone": "backbones",
    "insert_gates": "backbones",
    "load_config": "config",
    "get_cfg": "config",
    "load_plugins": "plugins",
    "add_se_det_config": "config",
    "build_detector": "detection",
    "fuse_for_inference": "layers.fuse",
    "load_weights": "weights",
    "list_weights": "weights",
    "register_dataset": "data",
    "Predictor": "inference",
    "classify": "classification",
    "load_classifier": "classification",
    "SeDetError": "errors",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'se_det' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
