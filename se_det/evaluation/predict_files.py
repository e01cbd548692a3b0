"""Detect in files: detections as one COCO JSON, images and videos drawn, one image or frame in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..background import InOrder, ahead
from ..data.images import read_image
from ..errors import CheckpointError, DataError
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

        def finish(picture: Picture, instances: dict[str, torch.Tensor], image_id: int) -> None:
            found, _ = to_coco_results(
                instances,
                image_id=image_id,
                category_ids=predictor.category_ids,
                masks="pred_masks" in instances,
            )
            frame = {} if picture.frame is None else {"frame": picture.frame}
            where = {"file_name": str(picture.source.path), **frame}
            results.extend({**where, **entry} for entry in found)
            drawn = draw_detections(
                picture.pixels,
                instances,
                predictor.class_names,
                score_threshold=score_threshold,
                enlarge_below=ENLARGE_BELOW if picture.frame is None else 0,
            )
            picture.write(drawn)
            bar.update()

        # The next picture is decoded, and the last one encoded, drawn and written, while the model works.
        with InOrder(finish) as later:

            def detect(pixels: np.ndarray, source: Source, write: Write, frame: int | None = None) -> None:
                account.images += 1
                later(Picture(source, pixels, write, frame), predictor.detect(pixels), account.images)

            for source, pixels in ahead(_decoded(sources)):
                left = None if limit is None else limit - account.images
                if left == 0:
                    break
                target = output / source.target
                if isinstance(pixels, DataError):
                    account.failures.append(str(pixels))
                elif pixels is not None:
                    detect(pixels, source, partial(_write_image, target))
                else:
                    try:
                        with VideoReader(source.path) as video, VideoWriter(target, video.rate) as drawn:
                            try:
                                for number, frame in enumerate(ahead(islice(video, left))):
                                    detect(frame, source, drawn.write, number)
                            finally:
                                later.wait()
                    except DataError as error:
                        account.failures.append(str(error))
        account.detections = results.count
    return account


Write = Callable[[np.ndarray], None]


@dataclass(frozen=True)
class Picture:
    """An image, or a frame of a video, and what takes it when it is drawn on."""

    source: Source
    pixels: np.ndarray
    write: Write
    frame: int | None


def _decoded(sources: Sequence[Source]) -> Iterator[tuple[Source, np.ndarray | DataError | None]]:
    """Every source with its pixels, or why it has none; None for a video."""
    for source in sources:
        try:
            yield source, None if source.video else read_image(source.path)
        except DataError as error:
            yield source, error


def _write_image(target: Path, drawn: np.ndarray) -> None:
    done, encoded = cv2.imencode(target.suffix, drawn)
    if not done:
        raise CheckpointError(f"{target} could not be written: the image is too large for its format.")
    write_atomically(target, lambda file: file.write(encoded.tobytes()))


def _total(sources: Sequence[Source]) -> int | None:
    return None if any(source.video for source in sources) else len(sources)
