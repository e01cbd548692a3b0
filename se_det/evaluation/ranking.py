"""Ranking images by how well a detector does on them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .overlaps import ImageOverlaps, above_score, match


@dataclass(frozen=True)
class ImageScore:
    """True positives, false positives and false negatives in an image, at one score threshold and IoU 0.5."""

    image_id: Hashable
    found: int
    false: int
    missed: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.found / (2 * self.found + self.false + self.missed)


def rank_images(images: Sequence[ImageOverlaps], *, score_threshold: float = 0.5) -> list[ImageScore]:
    """Sort the images by F1, the worst first; ties by more errors, then by fewer true positives.

    Images with neither objects nor detections are left out.
    """
    scores = []
    for whole in images:
        image = above_score(whole, score_threshold)
        found, ignored = match(image)
        right = int((found >= 0).sum())
        score = ImageScore(
            image_id=image.image_id,
            found=right,
            false=int(np.sum(~ignored)) - right,
            missed=int(np.sum(~image.crowd)) - right,
        )
        if score.found or score.false or score.missed:
            scores.append(score)
    return sorted(scores, key=lambda s: (s.f1, -(s.false + s.missed), s.found))
