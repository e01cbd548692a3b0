"""What happens to the pixels of an image before the network sees them, on torchvision.transforms.v2."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from ...data.transforms import resize_image, to_tensor
from ...errors import ConfigError

BILINEAR = InterpolationMode.BILINEAR
CROP, AUGMENTATION = 2, 3  # marks of the two streams of random numbers that a sample has


def seed_sample(seed: int, number: int, mark: int) -> None:
    """Make PyTorch's random numbers those of one sample of the run.

    Only the CPU's: `torch.manual_seed` would note a call for every GPU that the process has not touched.
    """
    state = np.random.SeedSequence((seed, number, mark)).generate_state(1, np.uint64)
    torch.default_generator.manual_seed(int(state[0]) >> 1)


@dataclass(frozen=True)
class ImageSizes:
    """The side of the training crops by epoch: `base`, and from each of `steps` ((epoch, size), ...) on that size.

    Raises:
        ConfigError: epochs that do not rise, or a size below 32.
    """

    base: int
    steps: tuple[tuple[float, int], ...] = ()

    def __post_init__(self) -> None:
        epochs = [epoch for epoch, _ in self.steps]
        if epochs != sorted(set(epochs)):
            raise ConfigError(f"INPUT.SIZES {self.steps}: the epochs must rise.")
        if min(self.base, *(size for _, size in self.steps), self.base) < 32:
            raise ConfigError(f"INPUT.IMAGE_SIZE {self.base} and INPUT.SIZES {self.steps}: the least is 32.")

    def at(self, epoch: float) -> int:
        """The size in an epoch, which may be a fraction."""
        place = bisect_right([first for first, _ in self.steps], epoch)
        return self.steps[place - 1][1] if place else self.base


class RandomCrop:
    """Crop a random part and resize it to a square: RandomResizedCrop (Szegedy et al., arXiv 1409.4842)."""

    def __init__(self, *, scale: Sequence[float], ratio: Sequence[float]) -> None:
        self._draw = v2.RandomResizedCrop(32, scale=tuple(scale), ratio=tuple(ratio))

    def __call__(self, image: torch.Tensor, size: int) -> torch.Tensor:
        """uint8 (3, H, W) to (3, size, size)."""
        place = self._draw.make_params([image])
        part = F.crop(image, **place).permute(1, 2, 0).numpy()
        # The pixels of `F.resized_crop`, in less time for an image whose channels lie together, as decoders give it.
        return to_tensor(resize_image(part, size, size, method="fast"))


def augmentation(
    *, flip: float, operations: int = 0, magnitude: int = 9, erasing: float = 0.0, fill: Sequence[float] = (0, 0, 0)
) -> v2.Transform:
    """What is done to a crop, uint8 (3, S, S): flip, RandAugment (arXiv 1909.13719), random erasing (1708.04896)."""
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip(flip)]
    if operations:
        steps.append(
            v2.RandAugment(operations, magnitude, interpolation=BILINEAR, fill=[round(value) for value in fill])
        )
    if erasing:
        steps.append(v2.RandomErasing(erasing, value=[float(round(value)) for value in fill]))
    return v2.Compose(steps)


def resize_center_crop(image: torch.Tensor, size: int, ratio: float) -> torch.Tensor:
    """uint8 (3, H, W) to (3, size, size): the short side becomes `size / ratio`, and the centre is cut out."""
    short = max(round(size / ratio), size)
    resized = F.resize(image, [short], interpolation=BILINEAR, antialias=True)
    return F.center_crop(resized, [size, size])


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, format: str) -> torch.Tensor:
    """uint8 RGB (N, 3, H, W) to float32 in the order of channels that `format`, `mean` and `std` have."""
    if format == "BGR":
        images = images.flip(1)
    return (images.float() - mean[:, None, None]) / std[:, None, None]
