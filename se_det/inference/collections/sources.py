"""What a person names on the command line, as containers of images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...data.listing import is_image_name, list_files
from ...errors import DataError
from ..sources import VIDEO_SUFFIXES, matching_paths
from .containers import Archive, Container, ListFile, Names, is_archive, is_list
from .storage import find_urls, is_url

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_OF_A_RANGE = 10_000_000
LOOKED_AT = 20  # first images of a list, of which one has to be there


def is_collection(text: str) -> bool:
    """Whether an input is one of the kinds that only collections have: a list, a tar shard, a URL."""
    return is_url(text) or is_list(text) or is_archive(text)


def find_containers(inputs: Sequence[str]) -> list[Container]:
    """The containers that `inputs` name, in their order, each once; images that are named singly make one together.

    Args:
        inputs: images, lists, tar shards, folders (images and shards in them), and patterns of these, as paths or
            URLs; `{000..127}` in a name stands for all numbers between.

    Raises:
        DataError: an input names nothing, or a list's images are not where it says.
        ConfigError: URLs of a scheme that cannot be opened here.
    """
    seen: set[str] = set()
    single: list[str] = []
    containers: list[Container] = []
    for text in inputs:
        found = [location for word in _expanded(text) for location in _search(word)]
        if not found:
            raise DataError(f"There are no images, lists or tar shards in {text}.")
        names = []
        for location in found:
            key = location if is_url(location) else os.path.realpath(location)
            if key in seen:
                continue
            seen.add(key)
            if is_archive(location):
                containers.append(Archive(location))
            elif is_list(location):
                containers.append(_checked(ListFile(location)))
            else:
                names.append(location)
        if found == [text]:
            single += names
        elif names:
            containers.append(Names(names, text))
    if single:
        containers.append(Names(single, f"{len(single)} named"))
    return containers


def _expanded(text: str) -> Iterator[str]:
    """`text` with its ranges written out, as WebDataset and the shell have them."""
    span = None if os.path.lexists(text) else RANGE.search(text)
    if span is None:
        yield text
        return
    first, last = map(int, span.groups())
    if not 0 <= last - first < MOST_OF_A_RANGE:
        raise DataError(f"{text}: {span[0]} is no range of at most {MOST_OF_A_RANGE} numbers, the lower one first.")
    for number in range(first, last + 1):
        yield from _expanded(f"{text[: span.start()]}{number:0{len(span[1])}}{text[span.end() :]}")


def _search(text: str) -> list[str]:
    """Locations of the lists, shards and images that a word without ranges names."""
    if not text:
        raise DataError("One of the inputs is an empty word: name images, lists or tar shards.")
    if is_url(text):
        if "*" not in text and (is_archive(text) or is_list(text) or is_image_name(text)):
            return [text]
        found = find_urls(text)
        if found is None:
            return [text]
        return [url for url in found if is_image_name(url) or is_archive(url) or (is_list(url) and "*" in text)]
    if os.path.isdir(text):
        return [os.path.join(text, name) for name in list_files(text, _is_wanted).files]
    if os.path.isfile(text):
        if Path(text).suffix.lower() in VIDEO_SUFFIXES:
            raise DataError(f"{text} is a video: these are taken by a call without lists, shards and --format.")
        return [text]
    if os.path.exists(text):
        raise DataError(f"{text} is neither a file nor a folder.")
    if not glob.has_magic(text):
        raise DataError(f"There is no file or folder {text}.")
    parts = Path(text).parts
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    paths = matching_paths(Path(*parts[:plain]), parts[plain:])
    return sorted(str(p) for p in paths if (_is_wanted(p.name) or is_list(p.name)) and os.path.isfile(p))


def _is_wanted(name: str) -> bool:
    return is_image_name(name) or is_archive(name)


def _checked(found: ListFile) -> ListFile:
    """Refuse a list none of whose first images is there: mostly its paths are relative to another folder."""
    names = [entry.name for entry in found.entries(0, LOOKED_AT)]
    if not names:
        raise DataError(f"The list {found.location} names no images.")
    if is_url(found.location) or any(map(is_url, names)):
        return found
    folder = Path(found.location).parent
    if not any(os.path.exists(folder / name) for name in names):
        raise DataError(
            f"Of the first {len(names)} images in {found.location} none is there, such as {folder / names[0]}: "
            "relative paths lead from the list's folder."
        )
    return found
