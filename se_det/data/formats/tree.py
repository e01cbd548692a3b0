"""The files of a folder, listed once: what formats are recognised by, and where images are found by name."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from ...errors import DataError
from ..listing import is_hidden, is_image_name
from .sizes import ImageSizes

_ANNOTATIONS = frozenset(
    ("annotation", "annotations", "label", "labels", "xml", "xmls", "json", "jsons", "ann", "anns", "csv", "main")
)
_IMAGES = frozenset(("image", "images", "img", "imgs", "jpegimages", "photos", "pictures", "data"))
MOST_FILES = 5_000_000

# What people call splits, in words of file and folder names.
SPLITS = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def extension(name: str) -> str:
    """The ending of a file's name in small letters, without its dot."""
    return os.path.splitext(name)[1][1:].lower()


def split_in(name: str) -> str | None:
    """The split that a word of a name says, such as `instances_train2017.json` or `valid`; None without one."""
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def split_of(path: Path, root: Path) -> str | None:
    """The split that a path below `root` says: its file's name first, then its folders, the nearest first."""
    parts = Path(os.path.relpath(path, root)).parts
    stem = os.path.splitext(parts[-1])[0] if parts else ""
    return next((s for s in map(split_in, (stem, *reversed(parts[:-1]))) if s), None)


class Tree:
    """The files below a folder.

    Attributes:
        root: the folder.
        chosen: the file or folder that was given as SRC.
        files: every file, sorted.
        partial: whether other files than images are those of one folder alone.
    """

    def __init__(self, root: Path, chosen: Path | None = None, *, annotations: Path | None = None) -> None:
        """List the folder.

        Args:
            annotations: of other files than images only those below this folder, and what belongs to it by its name.

        Raises:
            DataError: it cannot be read, or holds more than `MOST_FILES` files.
        """
        self.root, self.chosen = root, chosen or root
        self.partial = annotations is not None
        self.files = sorted(_walk(root))
        if annotations is not None:
            self.files = [path for path in self.files if _belongs(path, annotations)]

    def of(self, *extensions: str) -> list[Path]:
        """The files with one of these endings, whatever their case."""
        return [path for end in extensions for path in self._by_extension.get(end, ())]

    @cached_property
    def images(self) -> ImageIndex:
        """The image files."""
        return ImageIndex(self.root, [path for path in self.files if is_image_name(path)])

    @cached_property
    def sizes(self) -> ImageSizes:
        """The sizes of its images."""
        return ImageSizes(self.root)

    @cached_property
    def _by_extension(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in self.files:
            found[extension(path.name)].append(path)
        return found


class ImageIndex:
    """Image files by the names that annotations give them."""

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        self.root, self.paths = root, sorted(paths)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._known = set(self.paths)
        for path in self.paths:
            self._by_name[path.name.lower()].append(path)
            self._by_stem[path.stem.lower()].append(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __contains__(self, path: Path) -> bool:
        return path in self._known

    def below(self, folder: Path) -> list[Path]:
        """Those in a folder and the folders in it."""
        return [path for path in self.paths if path.is_relative_to(folder)]

    def find(self, name: str, bases: Iterable[Path], where: str) -> Path | None:
        """The image that an annotation calls `name`: beside one of `bases`, else that whose path ends most like it.

        Absolute paths of another machine, backslashes, `..`, another case, a lacking ending and percent signs of an
        address are seen through; the file's own name must agree.

        Args:
            bases: folders that it may be relative to, the likeliest first.
            where: what a sentence calls the place of the name.

        Raises:
            DataError: several files are as likely.
        """
        bases = list(bases)
        for text in dict.fromkeys((name, name.replace("\\", "/"), unquote(name).replace("\\", "/"))):
            wanted = [part for part in text.split("/") if part not in ("", ".", "..")]
            if "\0" in text or not wanted:
                continue
            for base in bases:
                path = Path(os.path.normpath(base / text))
                if path in self._known:
                    return path
            leaf = wanted[-1]
            found = self._by_name.get(leaf.lower()) or self._by_stem.get(leaf.lower())
            if not found and is_image_name(leaf):
                found = self._by_stem.get(os.path.splitext(leaf)[0].lower())
            if found:
                return self._likest(found, wanted, bases, name, where)
        return None

    def _likest(self, found: list[Path], wanted: list[str], bases: list[Path], name: str, where: str) -> Path:
        if len(found) == 1:
            return found[0]

        def likeness(path: Path) -> tuple[int, bool, int]:
            equal = 0
            for one, other in zip(reversed(path.parts[:-1]), reversed(wanted[:-1])):
                if one.lower() != other.lower():
                    break
                equal += 1
            near = [len(bases) - at for at, base in enumerate(bases) if path.is_relative_to(base)]
            return equal, path.name == wanted[-1], max(near, default=0)

        ranked = sorted(found, key=likeness, reverse=True)
        if likeness(ranked[0]) == likeness(ranked[1]):
            pair = " and ".join(str(path.relative_to(self.root)) for path in ranked[:2])
            raise DataError(
                f"{where}: the image {name!r} may be {pair} in {self.root}: give its path with the folder, or remove "
                "the file that is not meant."
            )
        return ranked[0]


def keeps_annotations(folder: Path) -> bool:
    """Whether a folder is called as those that lie beside their images' folder."""
    words = "".join(c if c.isalpha() else " " for c in folder.name.lower()).split()
    return bool(_ANNOTATIONS.intersection(words)) or split_in(folder.name) is not None


def _belongs(path: Path, annotations: Path) -> bool:
    """Whether a file is one of a folder's annotations, or what lies beside: its images, VOC's and YOLO's lists. Of a
    folder that may be a whole set, a folder beside may be another set: only one that is called so has its images."""
    if path.is_relative_to(annotations):
        return True
    beside = path.relative_to(annotations.parent).parts if path.is_relative_to(annotations.parent) else ("",)
    if is_image_name(path):
        words = set("".join(c if c.isalpha() else " " for c in beside[0].lower()).split())
        return keeps_annotations(annotations) or len(beside) == 1 or bool(words & _IMAGES) or bool(split_in(beside[0]))
    return beside[0] in ("ImageSets", "classes.txt", "obj.names") or beside[0].startswith("class-descriptions")


def _walk(root: Path) -> Iterable[Path]:
    """Files below `root`, links to folders followed once; what is hidden or an operating system's own is left out."""
    seen: set[str] = set()
    count = 0
    waiting, links = [str(root)], []
    while waiting or links:
        # Links last: a folder that lies below has the path that it lies at, not that of a link to it.
        folder = waiting.pop() if waiting else links.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir():
                        (links if entry.is_symlink() else waiting).append(entry.path)
                    elif entry.is_file():
                        count += 1
                        yield Path(entry.path)
        except OSError as error:
            raise DataError(f"The folder {folder} cannot be read: {error.strerror or error}.") from error
        if count > MOST_FILES:
            raise DataError(f"{root} holds more than {MOST_FILES} files: give the folder of the data set alone.")
