"""Classes by their names: which rows of a file's predictors belong to which class of the network."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from .load_report import shorten

# Layers whose shape follows the number of classes: a detector of other classes may start from the rest. A cascade has
# one of each box predictor's for every stage, by its number.
PREDICTORS = (
    "roi_heads.box_predictor.cls_score.",
    "roi_heads.box_predictor.bbox_pred.",
    "roi_heads.box_predictor.fed_loss_cls_weights",
    "roi_heads.mask_head.predictor.",
    "linear.",
)


def is_predictor(name: str) -> bool:
    """Whether a parameter of this name is one of `PREDICTORS`, of whatever stage."""
    return re.sub(r"\.\d+\.", ".", name).startswith(PREDICTORS)


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
            key: the parameter's name, one of `PREDICTORS`.
            tensor: the file's.
            fresh: of the same layer for the network's classes.
        """
        per_class, extra = _layout(key, len(tensor), len(self.file_names))
        own, own_extra = _layout(key, len(fresh), len(self.names))
        if not per_class or per_class != own or tensor.shape[1:].numel() != fresh.shape[1:].numel():
            return tensor  # of no class, as in a class-agnostic head; or of another shape, which is refused later
        result = fresh.clone()
        tensor = tensor.reshape(len(tensor), *fresh.shape[1:]).to(result.dtype)
        for at, source in enumerate(self.sources):
            if source >= 0:
                result[at * own : (at + 1) * own] = tensor[source * per_class : (source + 1) * per_class]
        if extra and own_extra:
            result[-1] = tensor[-1]
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


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _layout(key: str, rows: int, classes: int) -> tuple[int, bool]:
    """Rows of a predictor for each class, 0 for one that does not follow the classes; and whether there is one more,
    the background's."""
    if ".cls_score." in key:
        return int(rows == classes + 1), True
    per_class = 4 if ".bbox_pred." in key else 1
    # Of a single class, a class-agnostic head's rows are those of that class.
    return (per_class if rows == per_class * classes else 0), False
