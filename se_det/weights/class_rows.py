"""Classes by their names: which rows of a file's predictors belong to which class of the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .load_report import shorten


@dataclass(frozen=True, kw_only=True)
class ClassLayout:
    """How a predictor's weight and bias follow the classes.

    Attributes:
        rows: of one class, next to each other; 0: as many as there are, as of a small map.
        background: whether one more row, the last, is the background's.
        repeated: whether all classes may come several times, as for each anchor of a cell.
        columns: the last columns of the weight are the classes', too: the layer reads something of each class. 0 rows
            then are none.
        named: the names of the file's classes are theirs; of stuff and of keypoints they are not.
    """

    rows: int = 1
    background: bool = False
    repeated: bool = False
    columns: bool = False
    named: bool = True

    def split(self, tensor: torch.Tensor, classes: int) -> torch.Tensor | None:
        """The rows as (repeats, classes and background, rows, ...); None where they are not of so many classes."""
        count, length = classes + self.background, len(tensor)
        known = count * max(self.rows, 1)
        # Of a single class, a class-agnostic head's rows are those of that class.
        if length == 0 or (length % known if self.repeated or not self.rows else length != known):
            return None
        return tensor.reshape(-1, count, self.rows or length // count, *tensor.shape[1:])


# Layers whose shape follows the number of classes: a detector of other classes may start from the rest. By what the
# names of their parameters, which are Detectron2's, begin with: a regular expression.
_LAYOUTS: dict[str, ClassLayout] = {
    # `0.` and so on are the stages of a cascade.
    r"roi_heads\.box_predictor\.(\d+\.)?cls_score\.": ClassLayout(background=True),
    r"roi_heads\.box_predictor\.(\d+\.)?bbox_pred\.": ClassLayout(rows=4),
    r"roi_heads\.box_predictor\.(\d+\.)?fed_loss_cls_weights": ClassLayout(),
    r"roi_heads\.mask_head\.predictor\.": ClassLayout(),
    r"roi_heads\.mask_head\.coarse_head\.prediction\.": ClassLayout(rows=0),
    r"roi_heads\.mask_head\.point_head\.predictor\.": ClassLayout(columns=True),
    r"roi_heads\.mask_head\.point_head\.fc\d+\.weight": ClassLayout(rows=0, columns=True),
    r"roi_heads\.keypoint_head\.score_lowres\.": ClassLayout(named=False),
    r"sem_seg_head\.(.*\.)?(predictor|point_head)\.": ClassLayout(named=False),
    r"head\.cls_score\.": ClassLayout(repeated=True),
    r"linear\.": ClassLayout(),
}


def register_class_rows(pattern: str, layout: ClassLayout) -> None:
    """Declare, beside the layer, parameters whose rows are classes.

    Args:
        pattern: a regular expression for what their names in the whole detector begin with.
    """
    _LAYOUTS[pattern] = layout


def class_layout(name: str) -> ClassLayout | None:
    """How a parameter follows the classes; None where it does not."""
    return next((layout for pattern, layout in _LAYOUTS.items() if re.match(pattern, name)), None)


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

    def take(
        self, key: str, tensor: torch.Tensor, fresh: torch.Tensor, tensors: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """`fresh`, a predictor's initial values, with the rows of the classes that the file has, and of the background.

        Args:
            key: the parameter's name, which has a `class_layout`.
            tensor: the file's.
            fresh: of the same layer for the network's classes.
            tensors: the file's, of all layers; asked of PointRend's only.
        """
        layout = class_layout(key)
        if layout.columns and tensor.ndim > 1 and _reads_classes(key, tensor, tensors or {}):
            tensor = self._take_columns(tensor, fresh)
        if layout.columns and not layout.rows:
            return tensor
        if tensor.ndim < fresh.ndim:  # a fully connected layer for a 1 x 1 convolution
            tensor = tensor.reshape(*tensor.shape, *[1] * (fresh.ndim - tensor.ndim))
        theirs, ours = layout.split(tensor, len(self.file_names)), layout.split(fresh, len(self.names))
        if theirs is None or ours is None:
            return tensor  # of no class, as in a class-agnostic head; or of another shape, which is refused later
        if theirs[:, :1].numel() != ours[:, :1].numel():
            return tensor
        own = ours.clone()
        rows = theirs.reshape(own.shape[0], theirs.shape[1], *own.shape[2:]).to(own.dtype)
        for at, source in enumerate(self.sources):
            if source >= 0:
                own[:, at] = rows[:, source]
        if layout.background:
            own[:, -1] = rows[:, -1]
        return own.flatten(0, 2)

    def _take_columns(self, tensor: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """The file's rows, with the columns of the network's classes; 0 for a class that the file does not have."""
        shared = tensor.shape[1] - len(self.file_names)
        if shared != fresh.shape[1] - len(self.names):
            return tensor
        known = [at for at, source in enumerate(self.sources) if source >= 0]
        result = tensor.new_zeros(len(tensor), *fresh.shape[1:])
        result[:, :shared] = tensor[:, :shared]
        result[:, [shared + at for at in known]] = tensor[:, [shared + self.sources[at] for at in known]]
        return result

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


def _reads_classes(key: str, weight: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether a layer of a point head reads the coarse masks: the first does, others where they are wider than it."""
    first = key.rsplit(".", 2)[0] + ".fc1.weight"
    return key == first or (first in tensors and weight.shape[1] != len(tensors[first]))


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
