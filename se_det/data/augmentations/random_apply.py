"""What most augmentations share: they happen with a probability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from .arguments import number
from .protocol import Sample


class RandomApply(ABC):
    """An augmentation that happens with a probability, and otherwise leaves the sample as it is.

    Args:
        probability: at 1 no random number is drawn for it, so that what is drawn is Detectron2's.

    Raises:
        ConfigError: it is not between 0 and 1.
    """

    partners = 0

    def __init__(self, *, probability: float) -> None:
        self.probability = number(self, "probability", probability, 0, 1)

    def __call__(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample] = ()) -> Sample:
        if self.probability < 1 and random.random() >= self.probability:
            return sample
        return self.augmented(sample, random, partners)

    @abstractmethod
    def augmented(self, sample: Sample, random: np.random.Generator, partners: Sequence[Sample]) -> Sample:
        """The sample, when it happens; see `protocol.Augmentation`."""
