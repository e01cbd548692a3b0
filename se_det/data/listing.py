"""Which files of a folder are images: one answer for every command that is given a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath

from PIL import Image

from .images import readable_formats

# What operating systems, file managers and notebooks leave beside people's files, besides names with a leading dot.
SYSTEM_NAMES = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "#recycle",
        "icon\r",
    }
)
HEIF_SUFFIXES = (".heic", ".heif", ".hif")


@cache
def image_suffixes() -> tuple[str, ...]:
    """The endings, in lower case, of the image formats that are read; HEIC is among them where pillow-heif is."""
    readable = readable_formats()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in readable}
    return tuple(sorted((known | {".mpo"}) - {".pfm"}))  # floating-point numbers, which are refused


def is_image_name(name: str | os.PathLike) -> bool:
    """Whether a file of this name is taken for an image, in upper or lower case."""
    return PurePath(name).suffix.lower() in image_suffixes()


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name (not a path) is hidden, or an operating system's own."""
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in SYSTEM_NAMES


@dataclass
class Listing:
    """The files below a folder.

    Attributes:
        files: those that were wanted, relative to the folder, sorted.
        others: how many files of each ending (in lower case) were not.
        hidden: how many hidden or system files and folders were passed over.
    """

    files: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def left_out(self) -> str:
        """What was left out, as part of a sentence; "" where nothing was."""
        parts = [f"{count} {suffix or 'without an ending'}" for suffix, count in sorted(self.others.items())]
        shown = ", ".join(parts[:8]) + (f" and {len(parts) - 8} more kinds" if len(parts) > 8 else "")
        total = self.others.total()
        text = f"{total} file{'s' if total > 1 else ''} of other kinds ({shown})" if total else ""
        if self.hidden:
            text += f"{' and ' if text else ''}{self.hidden} hidden or system file{'s' if self.hidden > 1 else ''}"
        if any(suffix in self.others for suffix in HEIF_SUFFIXES):
            text += "; HEIC images are read where the package pillow-heif is installed"
        return text


def list_files(
    folder: str | os.PathLike,
    wanted: Callable[[str], bool] = is_image_name,
    *,
    on_error: Callable[[OSError], None] | None = None,
) -> Listing:
    """Every file below `folder` whose name is `wanted`. Links are followed, once to each folder; hidden files and
    folders, and those of operating systems, are passed over.

    Args:
        on_error: called with the error of a folder that cannot be read; None passes over it.
    """
    root = Path(folder)
    listing = Listing()
    # A link back to this folder or one above it would lead to what nobody named.
    real_root = Path(os.path.realpath(root))
    seen = {str(folder) for folder in (real_root, *real_root.parents)}
    for place, folders, files in os.walk(root, followlinks=True, onerror=on_error):
        inside = Path(place).relative_to(root)
        kept = []
        for name in sorted(folders):
            if is_hidden(name):
                listing.hidden += 1
                continue
            real = os.path.realpath(os.path.join(place, name))
            if real not in seen:  # a link back to a folder above would have no end
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        for name in files:
            if is_hidden(name):
                listing.hidden += 1
            elif not wanted(name):
                listing.others[PurePath(name).suffix.lower()] += 1
            else:  # also a pipe, or a link to nothing: reading it says so, by name
                listing.files.append(inside / name)
    listing.files.sort()
    return listing


def looked_for() -> str:
    """The endings of images, for sentences."""
    return ", ".join(image_suffixes())
