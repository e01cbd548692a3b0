"""A score of its own for every class: its loss, over all classes or over those that a step looks at (federated)."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def sigmoid_cross_entropy(
    logits: torch.Tensor, classes: torch.Tensor, kept: torch.Tensor | None = None
) -> torch.Tensor:
    """Binary cross-entropy summed over the K classes and averaged over the boxes, as Detectron2's USE_SIGMOID_CE.

    Args:
        logits: (n, K + 1), n above 0; the last, the background's, is not read.
        classes: (n,), K for background: a box of no class.
        kept: numbers of the classes that count; None: all of them.
    """
    target = F.one_hot(classes, logits.shape[1]).to(logits.dtype)
    terms = F.binary_cross_entropy_with_logits(logits[:, :-1], target[:, :-1], reduction="none")
    if kept is not None:
        weight = logits.new_zeros(logits.shape[1])
        weight[kept] = 1
        terms = terms * weight[:-1]
    return terms.sum() / len(logits)


def federated_classes(classes: torch.Tensor, weights: torch.Tensor, count: int) -> torch.Tensor:
    """The classes of a step's federated loss (Zhou et al., arXiv 2103.07461, section 5.2): those of its boxes and,
    where these are fewer than `count`, others drawn without replacement in proportion to their weights.

    Args:
        classes: (n,) of the boxes, K for background, which counts as one.
        weights: (K,), above 0.
        count: at most K.
    """
    present = classes.unique()
    lacking = count - len(present)
    if lacking <= 0:
        return present
    chance = torch.cat([weights.float(), weights.new_zeros(1, dtype=torch.float32)])
    chance[present] = 0
    return torch.cat([present, torch.multinomial(chance, lacking, replacement=False)])
