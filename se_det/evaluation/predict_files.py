"""Detect in files: detections as one COCO JSON, images and videos drawn, one image or frame in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..data.images import read_image
from ..errors import DataError
from ..files import write_atomically
from .coco_results import to_coco_results
from .drawing import draw_detections
from .json_list import JsonList
from .predictor import Predictor
from .sources import Source
from .video import VideoReader, VideoWriter

RESULTS = "detections.json"
ENLARGE_BELOW = 400  # px of the long side: labels on smaller images cannot be read


@dataclass
class Account:
    """What was done: images and frames detected in, detections, and a sentence per file that could not be read."""

    images: int = 0
    detections: int = 0
    failures: list[str] = field(default_factory=list)


def predict_files(
    predictor: Predictor,
    sources: Sequence[Source],
    output: str | Path,
    *,
    score_threshold: float = 0.5,
    limit: int | None = None,
) -> Account:
    """Detect in `sources`, write `detections.json` and what is drawn into `output`.

    Each entry of the JSON is a COCO result with `image_id` (counted from 1 over all images and frames), `file_name`,
    and of a video `frame`, from 0. A file that cannot be read is passed over; of a video that breaks off the frames
    before are kept.

    Args:
        predictor: what detects.
        sources: of `find_sources`.
        output: an existing folder.
        score_threshold: what is drawn; the JSON has everything the detector found.
        limit: stop after so many images and frames.

    Raises:
        CheckpointError: the results cannot be written.
    """
    account = Account()
    output = Path(output)
    # Quiet where nobody watches (disable=None); how many frames a video has is known at its end only.
    with JsonList(output / RESULTS) as results, tqdm(unit="image", total=_total(sources), disable=None) as bar:

        def detect(pixels: np.ndarray, source: Source, frame: int | None) -> np.ndarray:
            account.images += 1
            instances = predictor.detect(pixels)
            found, _ = to_coco_results(
                instances,
                image_id=account.images,
                category_ids=predictor.category_ids,
                masks="pred_masks" in instances,
            )
            where = {"file_name": str(source.path), **({} if frame is None else {"frame": frame})}
            results.extend({**where, **entry} for entry in found)
            bar.update()
            return draw_detections(
                pixels,
                instances,
                predictor.class_names,
                score_threshold=score_threshold,
                enlarge_below=ENLARGE_BELOW if frame is None else 0,
            )

        for source in sources:
            left = None if limit is None else limit - account.images
            if left == 0:
                break
            try:
                (_video if source.video else _image)(source, output / source.target, detect, left)
            except DataError as error:
                account.failures.append(str(error))
        account.detections = results.count
    return account


Detect = Callable[[np.ndarray, Source, int | None], np.ndarray]


def _image(source: Source, target: Path, detect: Detect, left: int | None) -> None:
    drawn = detect(read_image(source.path), source, None)
    try:
        done, encoded = cv2.imencode(target.suffix, drawn)
    except cv2.error:
        done = False
    if not done:
        height, width = drawn.shape[:2]
        raise DataError(
            f"{source.path} was detected in but not drawn: {width} x {height} px are more than a {target.suffix} file "
            "can hold."
        )
    write_atomically(target, lambda file: file.write(encoded.tobytes()))


def _video(source: Source, target: Path, detect: Detect, left: int | None) -> None:
    with VideoReader(source.path) as video, VideoWriter(target, video.rate) as drawn:
        for number, frame in enumerate(islice(video, left)):
            drawn.write(detect(frame, source, number))


def _total(sources: Sequence[Source]) -> int | None:
    return None if any(source.video for source in sources) else len(sources)
