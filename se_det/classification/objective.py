"""What a step of pretraining minimises: from a batch of pixels to the loss and the accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.transforms import v2

from .data.loader import Batch
from .data.transforms import AUGMENTATION, normalize, seed_sample
from .losses import ClassificationLoss


class Objective(nn.Module):
    """A classifier with all that only training needs around it.

    Args:
        classifier: normalised images to logits.
        loss: of logits and targets.
        mean, std: in the order of `format`, on the 0..255 scale.
        mixing: mixes the images of a batch and their targets; None does not.
        augment: of one image, where that is not done by the workers.
        seed: of the run, for `augment`.
        channels_last: the memory layout of the network's input.
    """

    def __init__(
        self, classifier: nn.Module, *, loss: ClassificationLoss, mean: Sequence[float], std: Sequence[float],
        format: str = "RGB", mixing: v2.Transform | None = None, augment: v2.Transform | None = None, seed: int = 0,
        channels_last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.classifier, self.loss, self.mixing, self.augment = classifier, loss, mixing, augment
        self.format, self.seed, self.channels_last = format, seed, channels_last
        # Not of the state: the checkpoint's config has them.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """`loss_cls`, and `top1`: the percentage of images whose own class has the highest logit."""
        images = batch.images.to(self.mean.device, non_blocking=True)
        labels = batch.labels.to(self.mean.device, non_blocking=True)
        if self.augment is not None:
            images = self._augment(images, batch.numbers)
        x, target = normalize(images, self.mean, self.std, self.format), labels
        if self.mixing is not None:
            x, target = self.mixing(x, labels)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        logits = self.classifier(x)
        right = logits.detach().argmax(1) == labels
        return {"loss_cls": self.loss(logits, target), "top1": right.float().mean() * 100}

    def _augment(self, images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Image by image, each with its own random numbers: the same ones that a worker would have drawn."""
        state = torch.default_generator.get_state()
        done = []
        for image, number in zip(images, numbers.tolist()):
            seed_sample(self.seed, number, AUGMENTATION)
            done.append(self.augment(image))
        torch.default_generator.set_state(state)
        return torch.stack(done)


def mixing(*, mixup: float, cutmix: float, num_classes: int) -> v2.Transform | None:
    """Mixup (arXiv 1710.09412) with Beta(mixup, mixup), CutMix (arXiv 1905.04899), or one drawn for each batch."""
    ways: list[v2.Transform] = []
    if mixup > 0:
        ways.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix > 0:
        ways.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    return v2.RandomChoice(ways) if len(ways) > 1 else ways[0] if ways else None
