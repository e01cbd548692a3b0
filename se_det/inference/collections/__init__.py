"""Detection in very many images: lists, tar shards and URLs, shared by processes, resumed where the last call ended."""

from .run import CollectionSummary, predict_collection

__all__ = ["CollectionSummary", "predict_collection"]
