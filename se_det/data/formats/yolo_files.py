"""YOLO's label files: which file is whose image's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import DataError
from .reading import read_text
from .tree import Tree
from .yolo_lines import MOST_CLASSES

CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt", "labels.txt", "predefined_classes.txt")
NO_LABELS = frozenset((*CLASS_FILES, "readme.txt", "readme.roboflow.txt", "readme.dataset.txt", "requirements.txt"))


class LabelFiles:
    """The label files of a tree, by their images."""

    def __init__(self, tree: Tree, folders: Sequence[Path]) -> None:
        """`folders`: those that have label files, whatever they are called."""
        self.files = [path for path in tree.of("txt") if path.name.lower() not in NO_LABELS]
        self._inside = {str(path) for path in self.files}
        self._root, self._partial = tree.root, tree.partial
        known = set(folders)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.files:
            if path.parent in known:
                self._by_stem[path.stem].append(path)
        self._stems = Counter(path.stem for path in tree.images.paths)

    def of(self, image: Path) -> Path | None:
        """An image's label file; None where it has none."""
        unlisted = self._partial or not image.is_relative_to(self._root)
        for path in label_places(image):
            if str(path) in self._inside or (unlisted and path.is_file()):
                return path
        # In a folder of another name: the only one so called, or the only one in a folder called as the image's.
        found = self._by_stem.get(image.stem, [])
        if len(found) == 1 and self._stems[image.stem] == 1:
            return found[0]
        found = [path for path in found if path.parent.name == image.parent.name]
        return found[0] if len(found) == 1 else None


def label_places(image: Path) -> list[Path]:
    """Where an image's label file may be: `images` of its path replaced by `labels`, the last one first; beside it."""
    parts = image.with_suffix(".txt").parts
    places = []
    for at in range(len(parts) - 2, -1, -1):
        if parts[at].lower() in ("images", "image", "imgs", "img", "jpegimages"):
            places += [Path(*parts[:at], folder, *parts[at + 1 :]) for folder in ("labels", "label")]
    places.append(image.with_suffix(".txt"))
    for folder in (image.parent, image.parent.parent):
        places += [folder / "labels" / f"{image.stem}.txt", folder / "labels" / image.parent.name / f"{image.stem}.txt"]
    return places


def highest_class(path: Path) -> int:
    """The highest class of a label file; what is no number is refused when its line is read."""
    found = -1
    for line in label_text(path).splitlines():
        with suppress(ValueError, IndexError, OverflowError):
            label = float(line.split()[0])
            if label < MOST_CLASSES:
                found = max(found, int(label))
    return found


def label_text(path: Path) -> str:
    """What a file says; "?", which is no label, of one that is no text."""
    try:
        return read_text(path)
    except DataError:
        return "?"
