"""Networks that turn an image into feature maps: trunks, the pyramid, and the catalog of their names."""

from .catalog import create_backbone, create_model, list_models
from .gate_insertion import insert_gates

__all__ = ["create_backbone", "create_model", "insert_gates", "list_models"]
