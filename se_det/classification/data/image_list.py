"""A text file of `imagename label` lines with a root, as the SP/RG authors have it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import DataError
from ...files import is_within
from .dataset import ClassificationDataset, read_file, resolve_class_names

HEADER = ("imagename", "label")
MAX_CLASSES = 1_000_000  # a label above is a mistake, and would make a classifier that no memory holds


class ImageList(ClassificationDataset):
    """Images in the order of the list; a label is the number of a class, from 0.

    Args:
        root: what names are relative to; a name that leads out of it is refused.
        classes: names of the classes.
        num_classes: labels must be below; 0 takes the highest label.

    Raises:
        DataError: naming the list and the line.
    """

    def __init__(self, path: Path, *, root: Path, classes: Sequence[str] | None = None, num_classes: int = 0) -> None:
        self._root, self._base = root, os.path.abspath(root)
        if not root.is_dir():
            raise DataError(f"The root {root} of the list {path} is no folder.")
        bound = len(classes) if classes is not None else num_classes
        names, labels = [], []
        try:
            with open(path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, start=1):
                    words = line.rsplit(None, 1)
                    if not words or (not names and tuple(w.strip().lower() for w in words) == HEADER):
                        continue
                    name, label = self._entry(words, bound, f"{path}, line {number}")
                    names.append(name)
                    labels.append(label)
        except OSError as error:
            raise DataError(f"The list {path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise DataError(f"The list {path} is no UTF-8 text: give `imagename label` lines.") from error
        super().__init__(str(path), names, labels, resolve_class_names(str(path), labels, classes, num_classes))

    def _entry(self, words: list[str], bound: int, where: str) -> tuple[str, int]:
        if len(words) < 2:
            raise DataError(f"{where}: '{words[0].strip()}' has no label: give `imagename label`.")
        name, text = words[0].strip(), words[1]
        if not (text.isascii() and text.isdigit()):
            raise DataError(f"{where}: the label '{text}' of '{name}' is no number from 0: give `imagename label`.")
        label = int(text) if len(text) < 20 else MAX_CLASSES
        if label >= (bound or MAX_CLASSES):
            raise DataError(
                f"{where}: the label {text} of '{name}' is out of range: there are "
                f"{f'{bound} classes' if bound else f'at most {MAX_CLASSES} classes'}, numbered from 0."
            )
        full = os.path.normpath(os.path.join(self._base, name))
        if "\0" in name or not is_within(full, self._base):
            raise DataError(f"{where}: '{name}' leads out of the root {self._root}: give another root.")
        return name, label

    def read(self, index: int) -> bytes:
        return read_file(self._root / self.names[index])

    def describe(self, index: int) -> str:
        return f"{self._root / self.names[index]}, of the list {self.source},"
