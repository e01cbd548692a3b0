"""detections.json: COCO results with the file's name, of everything that was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..json_list import JsonList
from .protocol import Detected


class CocoFile(JsonList):
    """A list of results with `file_name` and, of a video, `frame`."""

    names = ("detections.json",)
    videos = True

    def __init__(self, folder: Path, categories: Sequence[dict[str, Any]]) -> None:
        super().__init__(folder / self.names[0])

    def add(self, image: Detected) -> None:
        """Append all results, whatever is drawn."""
        frame = {} if image.frame is None else {"frame": image.frame}
        where = {"file_name": str(image.path), **frame}
        self.extend({**where, **result} for result in image.results)
