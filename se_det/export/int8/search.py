"""Which layers stay in float32: groups of suspects go back, one after another, until no figure has lost too much."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...evaluation.figures import Metrics
from .cost import change, loss

logger = logging.getLogger(__name__)

# What a sentence calls a group, and what the names of its weights contain; a layer is of the first group that has it.
# Gates come first: a factor for each channel, of a sigmoid, multiplies an error into the whole map. Then the layers
# whose outputs are numbers of px, scores and classes. The trunk, where most of the time goes, comes last.
SUSPECTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("gates", (".gate.",)),
    (
        "outputs",
        ("anchor_deltas", "objectness_logits", "bbox_pred", "cls_score", "ctrness", "predictor", "prediction",
         "score_lowres"),
    ),
    ("stem", (".stem.",)),
    ("pyramid", ("fpn_lateral", "fpn_output", "top_block")),
    ("heads", ("rpn_head", "box_head", "mask_head", "keypoint_head", "point_head", "sem_seg_head", "cls_subnet",
               "bbox_subnet")),
    *((stage, (f"{stage}.",)) for stage in ("res2", "res3", "res4", "res5")),
    ("others", ("",)),
)  # fmt: skip


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
        kept: the groups of layers left in float32, each with how many layers it has.
        layers: how many layers were quantised, of how many.
        before, after: the metrics by task.
    """

    kept: Mapping[str, int]
    layers: tuple[int, int]
    before: Metrics
    after: Metrics

    @property
    def lost(self) -> float:
        """The most points that a figure has lost."""
        return loss(self.before, self.after)

    def __str__(self) -> str:
        """ "45 of 49 layers in int8, in float32 outputs (4): bbox AP 40.00 to 39.90"."""
        quantised, total = self.layers
        kept = ", ".join(f"{group} ({count})" for group, count in self.kept.items())
        return (
            f"{quantised} of {total} layers in int8{f', in float32 {kept}' if kept else ''}: "
            f"{change(self.before, self.after)}"
        )


def grouped(layers: Sequence[str]) -> dict[str, list[str]]:
    """The names of layers by their group, in the order of `SUSPECTS`."""
    groups: dict[str, list[str]] = {group: [] for group, _ in SUSPECTS}
    for name in layers:
        groups[next(group for group, marks in SUSPECTS if any(mark in name for mark in marks))].append(name)
    return {group: names for group, names in groups.items() if names}


def quantise(
    quantiser: Quantiser, path: Path, evaluate: Callable[[Path], Metrics], before: Metrics, *, allowed: float = 0.5
) -> Quantised:
    """Write `path` with as many layers quantised as cost no figure more than `allowed`, and log what stays and why.

    A group goes back to float32 where that brings the figures nearer to `before`; the best of what was tried is written
    in the end, also where no trial was within `allowed`.

    Args:
        evaluate: the metrics of a file.
        before: those of the float32 file.
        allowed: points of each of `figures`.
    """
    groups: dict[str, int] = {}
    kept: list[str] = []
    quantiser.write(path, kept)
    written = list(kept)
    after = evaluate(path)
    lost = loss(before, after)
    logger.info("All %d layers in int8: %s.", len(quantiser.layers), change(before, after))
    for group, names in grouped(quantiser.layers).items():
        if lost <= allowed:
            break
        if len(names) + len(kept) == len(quantiser.layers):  # nothing would be left in int8
            continue
        written = [*kept, *names]
        quantiser.write(path, written)
        found = evaluate(path)
        logger.info("%s (%d layers) in float32: %s.", group.capitalize(), len(names), change(before, found))
        points = loss(before, found)
        if points < lost:
            groups[group] = len(names)
            kept += names
            lost, after = points, found
    if written != kept:
        quantiser.write(path, kept)
    return Quantised(groups, (len(quantiser.layers) - len(kept), len(quantiser.layers)), before, after)
