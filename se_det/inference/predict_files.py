"""Detect in files: detections as one COCO JSON, images and videos drawn, one image or frame in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..background import SerialExecutor, prefetch
from ..data.images import read_image
from ..errors import ConfigError, DataError
from ..files import atomic_write
from .coco_results import to_coco_results
from .drawing import draw_detections
from .pixel_output import PixelOutput
from .predictor import Predictor
from .result import score_limits
from .result_files import FORMATS, Detected
from .selection import select, select_shown
from .sources import Source
from .tiled import detect_tiled
from .video import VideoReader, VideoWriter

RESULTS = FORMATS["coco"].names[0]
ENLARGE_BELOW = 400  # px of the long side: labels on smaller images cannot be read


@dataclass
class PredictionSummary:
    """What was done: images and frames detected in, detections, and a sentence per file that could not be read."""

    images: int = 0
    detections: int = 0
    failures: list[str] = field(default_factory=list)


def predict_files(
    predictor: Predictor,
    sources: Sequence[Source],
    output: str | Path,
    *,
    score_threshold: float | None = None,
    classes: Sequence[int] | None = None,
    limit: int | None = None,
    format: str = "coco",
) -> PredictionSummary:
    """Detect in `sources`, write `detections.json`, or another file of `format`, and what is drawn into `output`.

    Each entry of the JSON is a COCO result with `image_id` (counted from 1 over all images and frames), `file_name`,
    and of a video `frame`, from 0. A file that cannot be read is passed over; of a video that breaks off the frames
    before are kept. What is written of a model that labels pixels, `PixelOutput` says.

    Args:
        predictor: what detects.
        sources: of `find_sources`.
        output: an existing folder.
        score_threshold: what is drawn; None takes each class's own (see `Result.above_thresholds`). The JSON has
            everything the detector found.
        classes: indices of the classes that are drawn and written, of what the detector found; None is all.
        limit: stop after so many images and frames.
        format: one of `FORMATS`; those of labelling tools have what is drawn.

    Raises:
        ConfigError: there are videos, and the format is for images.
        DataError: an input lies where the labels of pixels are written.
        CheckpointError: the results cannot be written.
    """
    summary = PredictionSummary()
    output = Path(output)
    categories = [{"id": k, "name": name} for k, name in zip(predictor.category_ids, predictor.class_names)]
    video = next((source.path for source in sources if source.video), None)
    if video is not None and not FORMATS[format].videos:
        raise ConfigError(f"{video} is a video, and --format {format} is for images: leave it out.")
    limits = score_limits(
        predictor.thresholds if score_threshold is None else [score_threshold] * len(predictor.thresholds)
    )
    shown_from = torch.from_numpy(limits)
    # As `_shown` compares them, in the precision of scores.
    limit_of = dict(zip(predictor.category_ids, limits.astype(np.float32).tolist()))
    labelled = PixelOutput(predictor, output, sources)
    # Quiet where nobody watches (disable=None); how many frames a video has is known at its end only.
    with FORMATS[format](output, categories) as results, tqdm(unit="image", total=_total(sources), disable=None) as bar:

        def finish(picture: Picture, everything: dict[str, Any], image_id: int) -> None:
            instances = everything["instances"]
            if classes is not None:
                instances = select(instances, torch.isin(instances["pred_classes"].cpu(), torch.tensor(classes)))
            found, _ = to_coco_results(
                instances,
                image_id=image_id,
                category_ids=predictor.category_ids,
                masks=not {"box_masks", "crop_masks"}.isdisjoint(instances),
                keypoints="pred_keypoints" in instances,
            )
            results.add(
                Detected(
                    path=picture.source.path,
                    name=(picture.source.target.parent / picture.source.path.name).as_posix(),
                    frame=picture.frame,
                    height=picture.size[0],
                    width=picture.size[1],
                    results=found,
                    shown=[entry["score"] >= limit_of[entry["category_id"]] for entry in found],
                )
            )
            drawn = labelled.add(
                picture.source.target, picture.frame, picture.pixels, everything, image_id=image_id,
                file_name=str(picture.source.path),
            )  # fmt: skip
            if drawn is None:
                drawn = draw_detections(
                    picture.pixels,
                    picture.shrink(select_shown(instances, shown_from)),
                    predictor.class_names,
                    score_threshold=float("-inf"),
                    enlarge_below=ENLARGE_BELOW if picture.frame is None else 0,
                    skeleton=predictor.skeleton,
                )
            picture.write(drawn)
            bar.update()

        def picture(pixels: np.ndarray, source: Source, write: Write, frame: int | None = None) -> Picture:
            return Picture(source, pixels, write, frame, predictor.sample(pixels), pixels.shape[:2])

        def opened() -> Iterator[Picture | Source | DataError]:
            """Every source: an image as a picture, a video as it is, or why it cannot be read."""
            for source in sources:
                try:
                    write = partial(_write_image, source, output / source.target, summary.failures)
                    whole = not (source.video or predictor.window_sampler)
                    yield picture(read_image(source.path), source, write) if whole else source
                except DataError as error:
                    yield error

        # The next pictures are decoded and resized, and the masks of the last ones put into the image, encoded, drawn
        # and written, while the model works.
        with SerialExecutor(finish, depth=2 * predictor.cfg.TEST.IMS_PER_BATCH) as later:

            def detect(pictures: list[Picture]) -> None:
                pictures = pictures[: None if limit is None else limit - summary.images]
                for one, found in zip(pictures, predictor.outputs([one.sample for one in pictures])):
                    summary.images += 1
                    later(one, found, summary.images)

            for batch in prefetch(predictor.batches(opened(), _shape)):
                left = None if limit is None else limit - summary.images
                if left == 0:
                    break
                source = batch[0]
                if isinstance(source, DataError):
                    summary.failures.append(str(source))
                elif isinstance(source, Picture):
                    detect(batch)
                elif not source.video:
                    try:
                        tiled = detect_tiled(predictor, source.path, overview=True)
                    except DataError as error:
                        summary.failures.append(str(error))
                        continue
                    write = partial(_write_image, source, output / source.target, summary.failures)
                    summary.images += 1
                    one = Picture(source, tiled.overview, write, None, {}, tiled.size, tiled.in_overview)
                    later(one, {"instances": tiled.instances}, summary.images)
                else:
                    try:
                        with (
                            VideoReader(source.path) as video,
                            VideoWriter(output / source.target, video.rate) as drawn,
                        ):
                            frames = (
                                picture(pixels, source, drawn.write, number)
                                for number, pixels in enumerate(islice(video, left))
                            )
                            try:
                                for pictures in prefetch(predictor.batches(frames, _shape)):
                                    detect(pictures)
                            finally:
                                later.wait()
                    except DataError as error:
                        summary.failures.append(str(error))
        labelled.close()
        summary.detections = results.count
    return summary


Write = Callable[[np.ndarray], None]


@dataclass(frozen=True)
class Picture:
    """An image, or a frame of a video, what takes it when it is drawn on, and what the detector takes. Of an image that
    is too large to be drawn on, `pixels` are fewer than its `size` (height, width), and `shrink` puts detections into
    them."""

    source: Source
    pixels: np.ndarray
    write: Write
    frame: int | None
    sample: dict[str, Any]
    size: tuple[int, int]
    shrink: Callable[[dict[str, Any]], dict[str, Any]] = dict


def _shape(item: Picture | Source | DataError) -> object:
    """What a batch has in common; a video, and what cannot be read, stand alone."""
    return item.sample["image"].shape if isinstance(item, Picture) else item


def _write_image(source: Source, target: Path, failures: list[str], drawn: np.ndarray) -> None:
    try:
        done, encoded = cv2.imencode(target.suffix, drawn)
    except cv2.error:
        done = False
    if not done:
        height, width = drawn.shape[:2]
        failures.append(
            f"{source.path} was detected in but not drawn: {width} x {height} px are more than a {target.suffix} file "
            "can hold."
        )
        return
    atomic_write(target, lambda file: file.write(encoded.tobytes()))


def _total(sources: Sequence[Source]) -> int | None:
    return None if any(source.video for source in sources) else len(sources)
