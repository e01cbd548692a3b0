"""Which layers stay in float32: groups of suspects go back, one after another, until AP is what it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

# What a sentence calls a group, and what the names of its weights contain. Gates come first: a factor for each channel,
# of a sigmoid, multiplies an error into the whole map. Then the layers whose outputs are numbers of px and scores.
SUSPECTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("gates", (".gate.",)),
    (
        "outputs",
        (
            "anchor_deltas",
            "objectness_logits",
            "bbox_pred",
            "cls_score",
            "ctrness",
            "mask_head.predictor",
            "score_lowres",
        ),
    ),
    ("stem", (".stem.",)),
    ("pyramid", ("fpn_lateral", "fpn_output")),
    ("heads", ("rpn_head", "box_head", "mask_head", "keypoint_head", "cls_subnet", "bbox_subnet")),
)


class Quantiser(Protocol):
    """See `QUANTISERS`."""

    layers: list[str]

    def write(self, path: Path, kept: Sequence[str]) -> None:
        """Write the network with the layers of these names left in float32."""
        ...


@dataclass(frozen=True)
class Quantised:
    """What came of it.

    Attributes:
        kept: the groups of layers left in float32.
        layers: how many layers were quantised, of how many.
        before, after: the metrics by task.
    """

    kept: list[str]
    layers: tuple[int, int]
    before: Mapping[str, Mapping[str, float]]
    after: Mapping[str, Mapping[str, float]]


def quantise(
    quantiser: Quantiser,
    path: Path,
    evaluate: Callable[[Path], Mapping[str, Mapping[str, float]]],
    before: Mapping[str, Mapping[str, float]],
    *,
    allowed: float = 0.5,
) -> Quantised:
    """Write `path` with as many layers quantised as cost no more AP than `allowed`, and log what stays and why.

    A group goes back to float32 where that brings AP nearer to `before`; the best of what was tried is written in the
    end, also where no trial was within `allowed`.

    Args:
        evaluate: the metrics of a file.
        before: those of the float32 file.
        allowed: points of AP, of each task.
    """
    kept_groups: list[str] = []
    kept: list[str] = []
    quantiser.write(path, kept)
    written = list(kept)
    after = evaluate(path)
    lost = loss(before, after)
    logger.info("All %d layers in int8: %s.", len(quantiser.layers), change(before, after))
    for group, marks in SUSPECTS:
        if lost <= allowed:
            break
        names = [name for name in quantiser.layers if any(mark in name for mark in marks) and name not in kept]
        if not names:
            continue
        written = [*kept, *names]
        quantiser.write(path, written)
        found = evaluate(path)
        logger.info("%s (%d layers) in float32: %s.", group.capitalize(), len(names), change(before, found))
        if loss(before, found) < lost:
            kept_groups.append(group)
            kept += names
            lost, after = loss(before, found), found
    if written != kept:
        quantiser.write(path, kept)
    return Quantised(kept_groups, (len(quantiser.layers) - len(kept), len(quantiser.layers)), before, after)


def loss(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> float:
    """The most points of AP that a task has lost."""
    return max((before[task]["AP"] - after[task]["AP"] for task in before if "AP" in before[task]), default=0.0)


def change(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> str:
    """ "bbox AP 40.12 to 39.90", and so on for each task."""
    tasks = [task for task in before if "AP" in before[task]]
    return ", ".join(f"{task} AP {before[task]['AP']:.2f} to {after[task]['AP']:.2f}" for task in tasks)
