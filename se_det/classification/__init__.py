"""ImageNet-style classification: images from folders, lists and shards; recipes; pretraining; evaluation."""

from .predict import classify, load_classifier

__all__ = ["classify", "load_classifier"]
