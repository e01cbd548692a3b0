"""WebDataset shards: tar files whose members `key.jpg` and `key.cls` are an image and the number of its class.

The shards are gone through once; after that an image is a read of some bytes at a place. Nothing is ever unpacked to
disk, so that no member's name can do harm.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ...data.listing import image_suffixes
from ...data.tar_members import BLOCK, key_of, tar_members
from ...errors import DataError
from ...files import open_regular_file
from .dataset import MAX_BYTES, ClassificationDataset, resolve_class_names
from .image_list import MAX_CLASSES

LABEL_SUFFIX = ".cls"
OPEN_FILES = 64  # per process; a training set has a thousand shards, and a process may open about as many files


class ShardDataset(ClassificationDataset):
    """The images of some tar files, in the order of the files and of their members. Other members are left out.

    Args:
        paths: plain tar files.
        source: what sentences call all of them.

    Raises:
        DataError: naming the shard and the member: links, devices and sparse members, an image without a label or the
            other way round, a label that is no number or out of range, a shard cut short.
    """

    def __init__(
        self, paths: Sequence[Path], *, source: str, classes: Sequence[str] | None = None, num_classes: int = 0
    ) -> None:
        self._paths = list(paths)
        bound = len(classes) if classes is not None else num_classes
        names: list[str] = []
        rows: list[tuple[int, int, int, int]] = []  # shard, offset, bytes, label
        for number, path in enumerate(self._paths):
            for name, offset, size, label in _index(path, bound):
                names.append(name)
                rows.append((number, offset, size, label))
        table = np.array(rows, np.int64).reshape(-1, 4)
        self._shards, self._offsets, self._sizes, labels = table.T.copy()
        super().__init__(source, names, labels, resolve_class_names(source, labels, classes, num_classes))
        self._open: OrderedDict[int, IO[bytes]] = OrderedDict()
        self._owner = os.getpid()

    def read(self, index: int) -> bytes:
        path = self._paths[self._shards[index]]
        try:
            file = self._file(int(self._shards[index]))
            file.seek(int(self._offsets[index]))
            data = file.read(int(self._sizes[index]))
        except OSError as error:
            raise DataError(f"The shard {path} cannot be read: {error.strerror}.") from error
        if len(data) != self._sizes[index]:
            raise DataError(f"The shard {path} has become shorter: {self.names[index]} is no longer whole.")
        return data

    def describe(self, index: int) -> str:
        return f"{self.names[index]} in the shard {self._paths[self._shards[index]]}"

    def _file(self, shard: int) -> IO[bytes]:
        if self._owner != os.getpid():  # a worker process opens its own files
            self._close()
            self._owner = os.getpid()
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) >= OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        # Without a buffer: the next image is read elsewhere.
        self._open[shard] = open(self._paths[shard], "rb", buffering=0)  # noqa: SIM115 (closed above)
        return self._open[shard]

    def _close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def __del__(self) -> None:
        if hasattr(self, "_open"):  # else it was refused
            self._close()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict(), "_owner": -1}


def _index(path: Path, bound: int) -> list[tuple[str, int, int, int]]:
    """(name, offset, bytes, label) of every image of a shard."""
    images: dict[str, tuple[str, int, int]] = {}  # by key
    labels: dict[str, int] = {}
    try:
        length = path.stat().st_size
        with open_regular_file(path) as file:
            for member, tar in tar_members(file, path, _most_bytes, length=length):
                key, suffix = key_of(member.name)
                place = images if suffix.lower() != LABEL_SUFFIX else labels
                if key in place:
                    raise DataError(f"{path}: {member.name} is there twice, or two images have the key '{key}'.")
                if place is labels:
                    labels[key] = _label(tar.extractfile(member).read(), member.name, path, bound)
                else:
                    images[key] = (member.name, member.offset_data, member.size)
    except OSError as error:
        raise DataError(f"The shard {path} cannot be read: {error.strerror or error}.") from error
    for key, (name, _, _) in images.items():
        if key not in labels:
            raise DataError(f"{path}: the image {name} has no label: there is no member {key}{LABEL_SUFFIX}.")
    for key in labels:
        if key not in images:
            raise DataError(
                f"{path}: {key}{LABEL_SUFFIX} is a label without an image: there is none of the key '{key}'."
            )
    return [(name, offset, size, labels[key]) for key, (name, offset, size) in images.items()]


def _most_bytes(name: str) -> int:
    """How large a member of this name may be; 0 for what is neither an image nor a label."""
    suffix = key_of(name)[1].lower()
    return BLOCK if suffix == LABEL_SUFFIX else MAX_BYTES if suffix in image_suffixes() else 0


def _label(data: bytes, name: str, path: Path, bound: int) -> int:
    text = data.strip()
    if not text.isdigit() or len(text) > 19:
        raise DataError(f"{path}: the label {text[:20]!r} in {name} is no number from 0.")
    label = int(text)
    if label >= (bound or MAX_CLASSES):
        raise DataError(
            f"{path}: the label {label} in {name} is out of range: there are {bound or MAX_CLASSES} classes."
        )
    return label
