"""What a training will see: samples as they are augmented, sizes against anchors, classes, the split, the recipe."""

from .writing import write_preview

__all__ = ["write_preview"]
