"""What a person names on the command line, as files to detect in: images, folders, patterns and videos."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.listing import is_hidden, is_image_name, list_files, looked_for
from ..errors import DataError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A file, whether it is a video, and the file below the output folder that it is drawn to, which is its alone."""

    path: Path
    video: bool
    target: Path


def find_sources(inputs: Sequence[str], output: str | os.PathLike, *, reserved: Sequence[str] = ()) -> tuple[
    list[Source], list[str]
]:  # fmt: skip
    """The files that `inputs` name, in their order, a folder's and a pattern's sorted, each file once.

    Files that would be drawn to one name, such as `a.png` and `a.webp`, get `a.png` and `a-2.png`. What lies in
    `output` is not searched for when a folder holds it: drawn images of an earlier call.

    Args:
        inputs: files, folders (with all below), or patterns such as `photos/**/*.jpg`.
        output: the folder that results are written to.
        reserved: names there that are taken.

    Returns:
        The sources, and a sentence for each input that names nothing.

    Raises:
        DataError: an input would be overwritten by a result.
    """
    output = Path(output)
    pairs: list[tuple[Path, Path]] = []
    failures = []
    for text in inputs:
        found = _search(text, output)
        if not found:
            failures.append(_nothing(text))
        pairs += found
    taken = {name.casefold() for name in reserved}
    seen: set[str] = set()
    sources = []
    for path, name in pairs:
        real = os.path.realpath(path)
        if real in seen:
            continue
        if not os.path.isfile(path):
            failures.append(f"{path} is {'no file' if os.path.exists(path) else 'a link to a file that is not there'}.")
            continue
        seen.add(real)
        video = path.suffix.lower() in VIDEO_SUFFIXES
        suffix = ".mp4" if video else name.suffix if name.suffix.lower() in (".jpg", ".jpeg") else ".png"
        target, number = name.with_suffix(suffix), 1
        while str(target).casefold() in taken:
            number += 1
            target = name.with_name(f"{name.stem}-{number}{suffix}")
        taken.add(str(target).casefold())
        sources.append(Source(path=path, video=video, target=target))
    for written in [*(output / s.target for s in sources), *(output / name for name in reserved)]:
        # By the file itself, whatever the names: a link to an input counts.
        if os.path.exists(written) and os.path.realpath(written) in seen:
            raise DataError(f"{written} is one of the inputs and would be overwritten: give another output folder.")
    return sources, failures


def _search(text: str, output: Path) -> list[tuple[Path, Path]]:
    """(file, its name below the output folder) of one input."""
    path = Path(text)
    if not text or not _may_be_a_name(text):
        return []
    if os.path.isdir(path):  # unlike Path's own methods these take names of any length
        listing = list_files(path, _is_wanted)
        found = [(path / name, name) for name in listing.files if not _is_result(path / name, path, output)]
        if listing.left_out() and found:
            logger.info("%s: left out are %s.", path, listing.left_out())
        return found
    if os.path.isfile(path):
        return [(path, Path(path.name))]
    if os.path.exists(path) or not glob.has_magic(text):
        return []
    found = []
    # Names below the first part of the pattern that is not a plain folder.
    parts = Path(text).parts
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:plain])
    for file in _known(matching_paths(root, parts[plain:]), root, output):
        name = file.relative_to(root)
        # A pattern such as */../../a.jpg must not lead out of the output folder.
        found.append((file, Path(file.name) if ".." in name.parts else name))
    return found


def matching_paths(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """What `parts` of a pattern lead to from `folder`, as the shell has it: `**` is any folders below, hidden ones and
    links left out. (Python's `glob` follows links there, of which two that lead back are too many to follow.)
    """
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        while rest[:1] == ("**",):
            rest = rest[1:]
        yield from matching_paths(folder, rest or ("*",))
        for entry in _entries(folder, "*"):
            if entry.is_dir(follow_symlinks=False):
                yield from matching_paths(folder / entry.name, ("**", *rest))
    elif glob.has_magic(first):
        for entry in _entries(folder, first):
            if not rest or entry.is_dir():
                yield from matching_paths(folder / entry.name, rest)
    elif os.path.lexists(folder / first):
        yield from matching_paths(folder / first, rest)


def _entries(folder: Path, pattern: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [
                entry
                for entry in entries
                if fnmatch.fnmatch(entry.name, pattern) and is_hidden(entry.name) <= pattern.startswith(".")
            ]
    except OSError:  # no folder, or one that may not be looked into
        return []


def _known(files: Iterable[Path], root: Path, output: Path) -> list[Path]:
    return sorted(
        file for file in files if _is_wanted(file.name) and os.path.isfile(file) and not _is_result(file, root, output)
    )


def _is_wanted(name: str) -> bool:
    return is_image_name(name) or Path(name).suffix.lower() in VIDEO_SUFFIXES


def _is_result(file: Path, root: Path, output: Path) -> bool:
    """Whether a file found below `root` lies in the output folder, unless that is `root` itself."""
    inside = os.path.realpath(output)
    return inside != os.path.realpath(root) and Path(inside) in Path(os.path.realpath(file)).parents


def _may_be_a_name(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a character
        return False


def _nothing(text: str) -> str:
    if not text:
        return "One of the inputs is an empty word: name an image, a video, a folder or a pattern."
    if os.path.exists(text) and not os.path.isdir(text):
        return f"{text} is neither a file nor a folder."
    if os.path.isdir(text) or glob.has_magic(text):
        others = list_files(text, _is_wanted).left_out() if os.path.isdir(text) else ""
        return (
            f"There are no images or videos in {text} (looked for {looked_for()}, {', '.join(VIDEO_SUFFIXES)})."
            f"{f' It holds {others}.' if others else ''}"
        )
    return f"There is no file or folder {text}."
