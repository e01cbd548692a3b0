"""label_studio.json: tasks with predictions, for "Import" in Label Studio; and the labelling interface for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from pycocotools import mask as mask_tools

from ... import __version__
from ...files import is_within, write_text
from ..json_list import JsonList
from .protocol import Detected

LOCAL = "/data/local-files/?d="  # Label Studio's address of a file below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
WORD = 8  # bits of a value
SIZES = (3, 4, 8, 16)  # bits that the length of a run may take


class LabelStudioFile:
    """A task an image, with what is drawn as its prediction: brushes where there are masks, else rectangles.

    Args:
        folder: of the files.
        categories: of the classes.
    """

    names = ("label_studio.json", "label_studio.xml")
    videos = False

    def __init__(self, folder: Path, categories: Sequence[dict[str, Any]]) -> None:
        self.count = 0
        self._labels = {category["id"]: category["name"] for category in categories}
        self._folder, self._list, self._masks = folder, JsonList(folder / self.names[0]), False

    def __enter__(self) -> LabelStudioFile:
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self._list.__exit__(kind, *rest)
        if kind is None:
            write_text(self._folder / self.names[1], interface(list(self._labels.values()), masks=self._masks))

    def add(self, image: Detected) -> None:
        """Append a task."""
        results = [result for result, shown in zip(image.results, image.shown) if shown]
        regions = [self._region(image, number, result) for number, result in enumerate(results)]
        self.count += len(regions)
        scores = [result["score"] for result in results]
        prediction = {
            "model_version": f"se_det {__version__}",
            "score": sum(scores) / len(scores) if scores else 0.0,
            "result": regions,
        }
        self._list.extend([{"data": {"image": address(image.path)}, "predictions": [prediction]}])

    def _region(self, image: Detected, number: int, result: dict[str, Any]) -> dict[str, Any]:
        x, y, width, height = result["bbox"]
        label = self._labels[result["category_id"]]
        if "segmentation" in result:
            self._masks = True
            kind, value = "brushlabels", {"format": "rle", "rle": brush(mask_tools.decode(result["segmentation"]))}
        else:
            kind = "rectanglelabels"
            value = {
                "x": 100 * x / image.width, "y": 100 * y / image.height, "width": 100 * width / image.width,
                "height": 100 * height / image.height, "rotation": 0,
            }  # fmt: skip
        return {
            "id": f"{result['image_id']}-{number}", "type": kind, "from_name": "label", "to_name": "image",
            "original_width": image.width, "original_height": image.height, "image_rotation": 0,
            "score": result["score"], "value": {**value, kind: [label]},
        }  # fmt: skip


def address(path: Path) -> str:
    """What Label Studio fetches the image by: relative to the folder of the call, or to / for what is elsewhere."""
    absolute = os.path.abspath(path)
    place = os.path.relpath(absolute) if is_within(absolute, os.getcwd()) else absolute
    return LOCAL + quote(Path(place).as_posix().lstrip("/"))


def interface(labels: Sequence[str], *, masks: bool) -> str:
    """The labelling interface that the tasks are for, as Label Studio's XML."""
    tag = "BrushLabels" if masks else "RectangleLabels"
    rows = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
    choices = f'  <{tag} name="label" toName="image">\n{rows}  </{tag}>\n'
    return f'<View>\n  <Image name="image" value="$image"/>\n{choices}</View>\n'


def brush(mask: np.ndarray) -> list[int]:
    """A mask, uint8 or bool (height, width), as Label Studio's RLE, the bytes of an RGBA picture in run lengths.

    The format is that of the package @thi.ng/rle-pack, which Label Studio's front end uses: 32 bits with the number of
    values, 5 with the bits of a value less 1, four times 4 with the bits of a run length less 1; then, for each run, a
    bit that says whether one value repeats, 2 bits that choose among the four lengths, the length less 1, the value.
    """
    values = np.repeat(mask.ravel() > 0, 4)
    edges = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(values)]]))
    bits = [f"{len(values):032b}", f"{WORD - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    most = 1 << SIZES[-1]
    for start, length in zip(starts.tolist(), lengths.tolist()):
        value = f"{255 if values[start] else 0:08b}"
        while length:
            run = min(length, most)
            size = next(number for number, size in enumerate(SIZES) if run <= 1 << size)
            bits.append(f"1{size:02b}{run - 1:0{SIZES[size]}b}{value}")
            length -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))
