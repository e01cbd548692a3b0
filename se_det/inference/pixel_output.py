"""What `predict` writes of models that label pixels: PNGs of classes, and COCO's panoptic PNGs with their JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..files import write_json
from .panoptic_files import coco_segments, write_label_png, write_panoptic_png
from .pixel_drawing import draw_labels, draw_segments
from .sources import Source

if TYPE_CHECKING:
    from .predictor import Predictor

SEM_SEG, PANOPTIC, JSON = "sem_seg", "panoptic", "panoptic.json"


class PixelOutput:
    """Writes below a folder `sem_seg/NAME.png`, and of a panoptic model `panoptic/NAME.png` and `panoptic.json`.

    Args:
        folder: an existing one.
        sources: all that will be detected in.

    Raises:
        DataError: an input lies where PNGs would be written.
    """

    def __init__(self, predictor: Predictor, folder: Path, sources: Sequence[Source]) -> None:
        self._predictor, self._folder = predictor, folder
        self._entries: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        if predictor.pixel_class_names:
            _check_apart(sources, folder)
        # What is drawn of inputs in folders of these names lies among the PNGs.
        self._taken = {
            Path(*source.target.parts[1:]).with_suffix("").as_posix().casefold()
            for source in sources
            if source.target.parts[0].casefold() in (SEM_SEG, PANOPTIC)
        }

    def add(
        self, target: Path, frame: int | None, pixels: np.ndarray, found: Mapping[str, Any], *, image_id: int,
        file_name: str,
    ) -> np.ndarray | None:  # fmt: skip
        """Write what was found in an image, and draw it; None where the model labels no pixels.

        Args:
            target: what is drawn, below the folder, which PNGs are named after.
            frame: of a video.
            pixels: uint8 (H, W, 3), BGR.
            found: of `Predictor.outputs`.
        """
        predictor = self._predictor
        if "sem_seg" not in found:
            return None
        name = self._name(target, frame)
        write_label_png(_made(self._folder / SEM_SEG / f"{name}.png"), found["sem_seg"])
        if "panoptic_seg" not in found:
            return draw_labels(pixels, found["sem_seg"], predictor.pixel_class_names)
        segments, infos = found["panoptic_seg"]
        write_panoptic_png(_made(self._folder / PANOPTIC / f"{name}.png"), segments)
        described = coco_segments(infos, predictor.category_ids, predictor.pixel_category_ids)
        self._entries.append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": described})
        height, width = segments.shape
        self._images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        return draw_segments(pixels, segments, infos, predictor.class_names, predictor.pixel_class_names)

    def _name(self, target: Path, frame: int | None) -> str:
        """Of the PNGs; a.jpg and a.png have two."""
        name = target.with_suffix("").as_posix() + ("" if frame is None else f"_{frame:06d}")
        while name.casefold() in self._taken:
            name += target.suffix.replace(".", "_")
        self._taken.add(name.casefold())
        return name

    def close(self) -> None:
        """Write the JSON where there is anything for it.

        Raises:
            CheckpointError: it cannot be written.
        """
        if not self._entries:
            return
        predictor = self._predictor
        things = zip(predictor.category_ids, predictor.class_names)
        stuff = list(zip(predictor.pixel_category_ids, predictor.pixel_class_names))[1:]  # the first is all things
        categories = [
            {"id": number, "name": name, "isthing": thing}
            for thing, pairs in ((1, things), (0, stuff))
            for number, name in pairs
        ]
        document = {"images": self._images, "annotations": self._entries, "categories": categories}
        write_json(self._folder / JSON, document)


def _check_apart(sources: Sequence[Source], folder: Path) -> None:
    for source in sources:
        for name in (SEM_SEG, PANOPTIC):
            if Path(os.path.realpath(folder / name)) in Path(os.path.realpath(source.path)).parents:
                raise DataError(
                    f"{source.path} is one of the inputs and lies in {folder / name}, where the pixels' labels are "
                    "written: give another output folder."
                )


def _made(path: Path) -> Path:
    """The path, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
