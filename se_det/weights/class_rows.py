"""Classes by their names: which rows of a file's predictors belong to which class of the network."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from .load_report import shorten


@dataclass(frozen=True)
class Layout:
    """How the classes lie along a predictor's axis: `repeats` times one after the other, each `width` numbers wide.

    Attributes:
        key: pattern of the parameters' names.
        axis: of the classes.
        background: there is one more, which is the last.
        repeats, width: 0: as many as the axis is long, which is then a multiple of the number of classes.
        others: how many numbers along the axis come before the classes' are what is left.
    """

    key: str
    axis: int = 0
    background: bool = False
    repeats: int = 1
    width: int = 1
    others: bool = False


# Layers whose shape follows the number of classes: a detector of other classes may start from the rest.
LAYOUTS = (
    Layout(r"roi_heads\.box_predictor\.(\d+\.)?cls_score\.", background=True),
    Layout(r"roi_heads\.box_predictor\.(\d+\.)?bbox_pred\.", width=4),
    Layout(r"roi_heads\.box_predictor\.(\d+\.)?fed_loss_cls_weights"),
    Layout(r"roi_heads\.mask_head\.predictor\."),
    Layout(r"roi_heads\.mask_head\.coarse_head\.prediction\.", width=0),  # a map for each class, cell by cell
    Layout(r"roi_heads\.mask_head\.point_head\.predictor\."),
    Layout(r"roi_heads\.mask_head\.point_head\.fc\d+\.weight", axis=1, others=True),  # reads the coarse mask of each
    Layout(r"head\.cls_score\.", repeats=0),  # RetinaNet: the classes of each anchor; FCOS has one
    Layout(r"linear\."),
)
# Those of classes, parts or keypoints that the categories of a file are not the names of.
UNNAMED = (r"sem_seg_head\..*predictor\.", r"sem_seg_head\.point_head\.", r"roi_heads\.keypoint_head\.score_lowres\.")


def layout_of(key: str) -> Layout | None:
    """How the classes lie in a parameter; None where they do not."""
    return next((layout for layout in LAYOUTS if re.match(layout.key, key)), None)


def is_predictor(key: str) -> bool:
    """Whether a parameter's shape follows the number of classes or the like."""
    return layout_of(key) is not None or any(re.match(pattern, key) for pattern in UNNAMED)


@dataclass(frozen=True)
class ClassRows:
    """For each class of the network, the class of the file that has its name; -1 where none has.

    Args:
        names: of the network's classes.
        file_names: of the file's classes.
    """

    names: tuple[str, ...]
    file_names: tuple[str, ...]

    @property
    def sources(self) -> list[int]:
        """See the class. Names are equal up to case and spaces where they are equal to one such name only."""
        if self.names == self.file_names:
            return list(range(len(self.names)))
        return [self._source(at) for at in range(len(self.names))]

    def _source(self, at: int) -> int:
        for like in (str, _plain):
            wanted = like(self.names[at])
            same = [number for number, name in enumerate(self.file_names) if like(name) == wanted]
            if len(same) == 1 and [like(name) for name in self.names].count(wanted) == 1:
                return same[0]
        return -1

    @property
    def are_same(self) -> bool:
        """Whether both have the same classes in the same order."""
        return self.sources == list(range(len(self.file_names)))

    @property
    def are_permuted(self) -> bool:
        """Whether both have the same classes, in whatever order."""
        return sorted(self.sources) == list(range(len(self.file_names)))

    def take(self, key: str, tensor: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """`fresh`, a predictor's initial values, with the rows of the classes that the file has, and of the background.

        Args:
            key: the parameter's name, one that has a layout.
            tensor: the file's.
            fresh: of the same layer for the network's classes.
        """
        layout = layout_of(key)
        if tensor.ndim < fresh.ndim:
            tensor = tensor.reshape(*tensor.shape, *[1] * (fresh.ndim - tensor.ndim))
        theirs = _split(tensor, layout, len(self.file_names))
        ours = _split(fresh, layout, len(self.names))
        if theirs is None or ours is None:
            return tensor  # of no class, as in a class-agnostic head; or of another shape, which is refused later
        (others, rows), (own_others, own_rows) = theirs, ours
        if others.shape != own_others.shape or rows[:, :1].numel() != own_rows[:, :1].numel():
            return tensor
        taken = own_rows.clone()
        rows = rows.reshape(own_rows.shape[0], rows.shape[1], *own_rows.shape[2:]).to(taken.dtype)
        for at, source in enumerate(self.sources):
            if source >= 0:
                taken[:, at] = rows[:, source]
        if layout.background:
            taken[:, -1] = rows[:, -1]
        result = torch.cat([others.to(taken.dtype), taken.flatten(0, 2)])
        return result.movedim(0, layout.axis).reshape(fresh.shape)

    def note(self) -> str:
        """What became of the classes, for the account of a load."""
        sources = self.sources
        kept = [name for name, source in zip(self.names, sources) if source >= 0]
        fresh = [name for name, source in zip(self.names, sources) if source < 0]
        dropped = [name for at, name in enumerate(self.file_names) if at not in sources]
        text = f"Of the {len(self.names)} classes {len(kept)} keep their rows of the predictors"
        text += f" ({shorten(list(map(ascii, kept)))})" if kept else ""
        text += f", {len(fresh)} start fresh ({shorten(list(map(ascii, fresh)))})" if fresh else ""
        text += f"; left out are the file's {shorten(list(map(ascii, dropped)))}" if dropped else ""
        return f"{text}."

    def lists(self) -> str:
        """Both lists, for a sentence."""
        return (
            f"it has {len(self.file_names)} ({shorten(list(map(ascii, self.file_names)), 10)}), and the data "
            f"{len(self.names)} ({shorten(list(map(ascii, self.names)), 10)})"
        )


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _split(tensor: torch.Tensor, layout: Layout, classes: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What comes before the classes, (others, ...), and theirs, (repeats, classes, width, ...).

    None where the tensor is not of so many classes.
    """
    tensor = tensor.movedim(layout.axis, 0) if tensor.ndim > layout.axis else tensor
    count = classes + layout.background
    others = len(tensor) - count if layout.others else 0
    length = len(tensor) - others
    free = layout.repeats == 0 or layout.width == 0
    known = (layout.repeats or 1) * (layout.width or 1) * count
    # Of a single class, a class-agnostic head's rows are those of that class.
    if others < 0 or length == 0 or (length % known if free else length != known):
        return None
    repeats = layout.repeats or length // known
    return tensor[:others], tensor[others:].reshape(repeats, count, length // (repeats * count), *tensor.shape[1:])
