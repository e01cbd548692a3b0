"""Images through the network, with reading and decoding before it and encoding and writing behind it, all at once."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...background import SerialExecutor, map_ahead, prefetch
from ...data.images import decode, decode_error
from ...errors import DataError
from ..coco_results import to_coco_results
from ..predictor import Predictor
from ..selection import select
from ..tiled import detect_tiled
from .containers import Entry, Unit
from .parts import PartFolder, UnitParts
from .storage import StorageError

MOST_UNREACHABLE = 0.5  # of a part's images: where more do not answer, it is the storage, and not the images


@dataclass
class Counts:
    """What one process has done.

    Attributes:
        images: with results.
        failures: images, and shards from some image on, that could not be read.
        network: seconds in which the network computed.
        waiting: seconds in which it waited for images.
    """

    images: int = 0
    failures: int = 0
    detections: int = 0
    parts: int = 0
    network: float = 0.0
    waiting: float = 0.0


@dataclass(frozen=True)
class _Place:
    unit: int
    part: int


@dataclass(frozen=True)
class _Picture:
    """An image on its way: as the detector takes it, or why it could not be read."""

    place: _Place
    name: str
    sample: dict[str, Any] | None = None
    error: str = ""
    unreachable: bool = False


@dataclass(frozen=True)
class _End:
    """A part's last image has passed."""

    place: _Place
    last: bool


@dataclass
class _Part:
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    unreachable: int = 0


def detect_units(
    predictor: Predictor,
    units: Sequence[tuple[int, Unit]],
    parts: PartFolder,
    *,
    images: int,
    done: Mapping[int, UnitParts],
    classes: Sequence[int] | None = None,
    threads: int = 2,
    told: Callable[[Counts], object] = lambda counts: None,
) -> Counts:
    """Do `units`, of which the parts in `done` are there.

    Args:
        units: with their numbers.
        images: of a part, at most.
        classes: indices of those that are kept; None is all.
        threads: that read and decode.
        told: called after each batch.

    Raises:
        StorageError: most images of a part do not answer; the parts before are kept.
        CheckpointError: results cannot be written.
    """
    counts = Counts()
    batch = predictor.cfg.TEST.IMS_PER_BATCH
    kept = None if classes is None else torch.tensor(classes)
    current = _Part()

    def finish(item: _Picture | _End, instances: dict[str, Any] | None) -> None:
        nonlocal current
        if isinstance(item, _End):
            _check_reachable(current)
            parts.commit(item.place.unit, item.place.part, last=item.last, rows=current.rows, failures=current.failures)
            counts.parts += 1
            current = _Part()
        elif instances is None:
            current.failures.append({"image": item.name, "error": item.error})
            current.unreachable += item.unreachable
            counts.failures += 1
        else:
            row = _row(predictor, item, instances, kept)
            current.rows.append(row)
            counts.images += 1
            counts.detections += len(row["detections"])

    def opened(job: tuple[_Place, Entry | bytes, str] | _End) -> _Picture | _End:
        return job if isinstance(job, _End) else _open(predictor, *job)

    jobs = _jobs(units, images, done)
    pictures = map_ahead(opened, jobs, threads=threads, ahead=2 * (threads + batch))
    with SerialExecutor(finish, depth=4 * batch) as later:
        before = time.perf_counter()
        for found in prefetch(predictor.batches(pictures, _together)):
            start = time.perf_counter()
            counts.waiting += start - before
            if isinstance(found[0], _Picture) and found[0].sample is not None:
                instances = _detect(predictor, [one.sample for one in found])
                counts.network += time.perf_counter() - start
            else:
                instances = [None]
            for one, of_one in zip(found, instances):
                later(one, of_one)
            told(counts)
            before = time.perf_counter()
    return counts


def _jobs(
    units: Sequence[tuple[int, Unit]], images: int, done: Mapping[int, UnitParts]
) -> Iterator[tuple[_Place, Entry | bytes | DataError, str] | _End]:
    """Images that have no results yet, and an end after each part."""
    for number, unit in units:
        there = done.get(number, UnitParts()).numbers
        part = count = 0
        try:
            for entry in unit.entries():
                if count == images:
                    if part not in there:
                        yield _End(_Place(number, part), last=False)
                    part, count = part + 1, 0
                count += 1
                if part not in there:
                    yield _Place(number, part), _in_turn(entry), entry.name
        except StorageError:
            raise
        except DataError as error:  # the shard breaks off here
            yield _Place(number, part), error, unit.container.location
        yield _End(_Place(number, part), last=True)


def _in_turn(entry: Entry) -> Entry | bytes | DataError:
    """The bytes of an entry that has to be read now."""
    if not entry.in_turn:
        return entry
    try:
        return entry.read()
    except DataError as error:
        return error
    except OSError as error:
        return DataError(str(error.strerror or error))


def _open(predictor: Predictor, place: _Place, source: Entry | bytes | DataError, name: str) -> _Picture:
    if isinstance(source, DataError):
        return _Picture(place, name, error=str(source))
    data = None
    try:
        data = source.read() if isinstance(source, Entry) else source
        return _Picture(place, name, _sample(predictor, decode(io.BytesIO(data), "BGR")))
    except StorageError as error:
        return _Picture(place, name, error=str(error), unreachable=True)
    except Exception as error:  # of many kinds, where an image is not sound; see `decode`
        return _Picture(place, name, error=decode_error(error, empty=data == b""))


def _sample(predictor: Predictor, pixels: np.ndarray) -> dict[str, Any]:
    """An image as the network takes it; under TEST.TILE its pixels, which are cut when their turn comes."""
    if predictor.window_sampler is None:
        return predictor.sample(pixels)
    return {"pixels": pixels, "height": pixels.shape[0], "width": pixels.shape[1]}


def _detect(predictor: Predictor, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if predictor.window_sampler is None:
        return predictor.detect(samples)
    return [detect_tiled(predictor, sample["pixels"]).instances for sample in samples]


def _together(item: _Picture | _End) -> object:
    """What the images of a batch have in common: size and part, so that parts do not depend on what came before."""
    if isinstance(item, _End) or item.sample is None or "image" not in item.sample:
        return id(item)
    return item.sample["image"].shape, item.place


def _row(
    predictor: Predictor, picture: _Picture, instances: dict[str, Any], kept: torch.Tensor | None
) -> dict[str, Any]:
    if kept is not None:
        instances = select(instances, torch.isin(instances["pred_classes"].cpu(), kept))
    found, _ = to_coco_results(
        instances,
        image_id=0,
        category_ids=predictor.category_ids,
        masks=not {"box_masks", "crop_masks"}.isdisjoint(instances),
    )
    return {
        "image": picture.name,
        "width": picture.sample["width"],
        "height": picture.sample["height"],
        "detections": [{key: value for key, value in one.items() if key != "image_id"} for one in found],
    }


def _check_reachable(part: _Part) -> None:
    """Refuse a part most of whose images did not answer: they would be left out for good."""
    total = len(part.rows) + len(part.failures)
    if part.unreachable > MOST_UNREACHABLE * total:
        raise StorageError(
            f"{part.unreachable} of {total} images did not answer ({part.failures[0]['error']}). What was finished is "
            "kept: repeat the call when they can be reached."
        )
