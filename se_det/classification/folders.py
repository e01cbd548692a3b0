"""Class folders: `root/<class>/<image>`, classes and images in the order of their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError, did_you_mean
from .labelled import IMAGE_SUFFIXES, LabelledImages, read_file


class ClassFolders(LabelledImages):
    """The folders in `root` are the classes; folders inside them are looked through too. Hidden ones are left out.

    Args:
        classes: names of the classes, where they are known: a folder must be one of them.

    Raises:
        DataError: an empty class folder, a folder that is no class, images that lie beside the class folders.
    """

    def __init__(self, root: Path, *, classes: Sequence[str] | None = None, num_classes: int = 0) -> None:
        self._root = root
        try:
            entries = sorted((e for e in os.scandir(root) if not e.name.startswith(".")), key=lambda e: e.name)
            folders = [e.name for e in entries if e.is_dir()]
        except OSError as error:
            raise DataError(f"The folder {root} cannot be read: {error.strerror}.") from error
        if not folders:
            raise DataError(
                f"There are no class folders in {root}: give the images of each class a folder of their own."
            )
        if num_classes and classes is None and len(folders) != num_classes:
            raise DataError(f"{root} has {len(folders)} class folders, and MODEL.NUM_CLASSES is {num_classes}.")
        known = {name: label for label, name in enumerate(folders if classes is None else classes)}
        names, labels = [], []
        for folder in folders:
            if folder not in known:
                raise DataError(
                    f"{root / folder} is a folder of none of the {len(known)} classes.{did_you_mean(folder, known)}"
                )
            images = sorted(_images(root, folder))
            if not images:
                raise DataError(
                    f"The class folder {root / folder} is empty (looked for {', '.join(IMAGE_SUFFIXES)}): add its "
                    "images, or remove the folder."
                )
            names += images
            labels += [known[folder]] * len(images)
        super().__init__(str(root), names, labels, list(known))

    def read(self, index: int) -> bytes:
        return read_file(self._root / self.names[index])

    def where(self, index: int) -> str:
        return str(self._root / self.names[index])


def _images(root: Path, folder: str) -> list[str]:
    def refuse(error: OSError) -> None:
        raise DataError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    found = []
    for place, inner, files in os.walk(root / folder, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        inside = os.path.relpath(place, root)
        found += [
            f"{inside}/{name}" for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    return found
