"""Class folders: `root/<class>/<image>`, classes and images in the order of their names."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ...data.listing import Listing, is_hidden, list_files, looked_for
from ...errors import DataError, suggestion
from .dataset import ClassificationDataset, read_file

logger = logging.getLogger(__name__)


class ImageFolder(ClassificationDataset):
    """The folders in `root` are the classes; folders inside them are looked through too. Hidden ones are left out.

    Args:
        classes: names of the classes, where they are known: a folder must be one of them.

    Raises:
        DataError: an empty class folder, a folder that is no class, images that lie beside the class folders.
    """

    def __init__(self, root: Path, *, classes: Sequence[str] | None = None, num_classes: int = 0) -> None:
        self._root = root
        try:
            entries = sorted((e for e in os.scandir(root) if not is_hidden(e.name)), key=lambda e: e.name)
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
        names, labels, passed = [], [], Listing()
        for folder in folders:
            if folder not in known:
                raise DataError(
                    f"{root / folder} is a folder of none of the {len(known)} classes.{suggestion(folder, known)}"
                )
            listing = list_files(root / folder, on_error=_refuse)
            if not listing.files:
                others = f" It holds {listing.left_out()}." if listing.left_out() else ""
                raise DataError(
                    f"The class folder {root / folder} has no images (looked for {looked_for()}): add its images, or "
                    f"remove the folder.{others}"
                )
            names += sorted(f"{folder}/{name.as_posix()}" for name in listing.files)
            labels += [known[folder]] * len(listing.files)
            passed.others += listing.others
            passed.hidden += listing.hidden
        if passed.left_out():
            logger.info("%s: left out are %s.", root, passed.left_out())
        super().__init__(str(root), names, labels, list(known))

    def read(self, index: int) -> bytes:
        return read_file(self._root / self.names[index])

    def describe(self, index: int) -> str:
        return str(self._root / self.names[index])


def _refuse(error: OSError) -> None:
    raise DataError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error
