"""Labelled images: what every way of storing them offers, and the names of their classes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...data.string_array import StringArray
from ...errors import DataError
from ...files import open_regular_file

MAX_BYTES = 256 * 2**20  # of one encoded image; a larger one is no photo


class ClassificationDataset(ABC):
    """Images with a class each, in an order that does not change; reading one is a function of its index alone.

    Attributes:
        source: where they are from, for sentences.
        labels: int64 (n,), the class of each image.
        class_names: the name of every class.
        names: of the images, within their source.
    """

    def __init__(
        self, source: str, names: Sequence[str] | StringArray, labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str],
    ) -> None:  # fmt: skip
        self.source = source
        self.labels = np.asarray(labels, np.int64)
        self.class_names = list(class_names)
        # One block of bytes, not a million objects that every worker process would copy by counting references.
        self.names = names if isinstance(names, StringArray) else StringArray(names)

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            DataError: it cannot be read.
        """

    def describe(self, index: int) -> str:
        """What a sentence calls the image."""
        return f"{self.names[index]} ({self.source})"

    def counts(self) -> np.ndarray:
        """Images of every class, int64 (classes,)."""
        return np.bincount(self.labels, minlength=len(self.class_names))


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        DataError: it is missing, cannot be read, or is far too large for an image.
    """
    try:
        with open_regular_file(path) as file:
            # No more than there is: memory for MOST_BYTES would be asked for first, which takes longer than reading.
            data = file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)
    except OSError as error:
        raise DataError(f"The image {path} cannot be read: {error.strerror}. Add the file or take it out.") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"The image {path} has more than {MAX_BYTES >> 20} MiB: that is no photo, take it out.")
    return data


def read_class_names(path: str) -> list[str] | None:
    """The lines of a text file, the names of class 0, 1, ...; None for "".

    Raises:
        DataError: it cannot be read, is empty, or names a class twice.
    """
    if not path:
        return None
    try:
        with open_regular_file(path) as file:
            text = file.read().decode("utf-8")
        names = [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The class names in {path} (DATASETS.CLASSES) cannot be read: {error}.") from error
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if not names or twice:
        raise DataError(f"{path} (DATASETS.CLASSES) {f'names {twice!r} twice' if twice else 'is empty'}.")
    return names


def resolve_class_names(
    source: str, labels: Sequence[int], classes: Sequence[str] | None, num_classes: int
) -> list[str]:  # fmt: skip
    """Names of the classes of numbered labels: `classes`, or the numbers themselves.

    Raises:
        DataError: there are no images, or names and number disagree.
    """
    if not len(labels):
        raise DataError(f"There are no images in {source}.")
    if classes is not None and num_classes and len(classes) != num_classes:
        raise DataError(
            f"There are {len(classes)} class names, and MODEL.NUM_CLASSES is {num_classes}: make them agree."
        )
    return list(classes) if classes is not None else [str(n) for n in range(num_classes or int(max(labels)) + 1)]
