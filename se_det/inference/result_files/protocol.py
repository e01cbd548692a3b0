"""What a file of results is to `predict_files`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Detected:
    """An image or frame, and what was found in it.

    Attributes:
        path: of the file.
        name: below what was named: of `photos/`, `a/1.jpg`.
        frame: of a video, from 0.
        results: COCO results with `image_id`, of everything that was found.
        shown: for each of `results`, whether it is drawn.
    """

    path: Path
    name: str
    frame: int | None
    height: int
    width: int
    results: Sequence[dict[str, Any]]
    shown: Sequence[bool]


class ResultFile(Protocol):
    """Made as `kind(folder, categories)`, categories being `{"id", "name"}` a class; a context manager whose files are
    there when it ends without an error.

    Attributes:
        names: of the files in the folder, the one with the results first.
        videos: whether frames can be written.
        count: detections written so far.
    """

    names: Sequence[str]
    videos: bool
    count: int

    def add(self, image: Detected) -> None:
        """Append an image; the images come in their order."""
        ...
