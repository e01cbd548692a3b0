"""Networks that turn an image into feature maps: trunks, the pyramid, and the catalog of their names."""

from .catalog import create_backbone, create_model, list_models

__all__ = ["create_backbone", "create_model", "list_models"]
