"""One process's share of a collection, from what was named to a summary."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ...errors import ConfigError
from ...files import check_writable
from ...system import usable_cpus
from ..predictor import Predictor
from .parts import FAILURES, FORMATS, PartFolder, UnitParts
from .pipeline import Counts, detect_units
from .plan import hold_to, make_plan, share_of
from .sources import find_containers
from .storage import is_url

IMAGES_PER_PART = 500
FEWEST_FOR_URLS = 16  # threads: they wait for servers
TOLD_EVERY = 60.0  # seconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectionSummary:
    """What a call has done, and what the collection has come to.

    Attributes:
        counts: of this process, in this call.
        seconds: it took, from the first image on.
        cpus: how many CPUs it kept busy.
        total: images, failures, detections and parts of the whole collection; None while other shares are missing.
    """

    counts: Counts
    seconds: float
    cpus: float
    total: dict[str, int] | None


def predict_collection(
    predictor: Predictor,
    inputs: Sequence[str],
    output: str | Path,
    *,
    format: str = "jsonl",
    classes: Sequence[int] | None = None,
    images_per_part: int = IMAGES_PER_PART,
    share: tuple[int, int] = (0, 1),
    threads: int | None = None,
) -> CollectionSummary:
    """Detect in the images that `inputs` name and write the results to `output/parts`, a row an image.

    A row has `image`, `width`, `height` and `detections`, COCO results without `image_id`. A call that is repeated
    does what is not there yet; each image has one row, or one in `failures.jsonl`, whenever any process was killed.

    Args:
        inputs: see `find_containers`.
        output: a folder, the same for all processes.
        format: jsonl or parquet.
        classes: indices of those that are kept; None is all.
        images_per_part: at most; a killed process loses what it had of one part.
        share: (n, of m): this process's number, from 0, and how many share the work.
        threads: that read and decode; None goes by the CPUs.

    Raises:
        CheckpointError: `output` has results of another model, other options or images; or cannot be written.
        DataError: an input names nothing; or the storage no longer answers.
        ConfigError: a format, part or share that there is not, a package that is missing for it, or a model that labels
            pixels.
    """
    if format not in FORMATS:
        raise ConfigError(f"The format '{format}' is unknown: use {' or '.join(FORMATS)}.")
    if images_per_part < 1:
        raise ConfigError(f"--part-images must be at least 1, got {images_per_part}.")
    if predictor.pixel_class_names:
        raise ConfigError(
            "The model labels pixels, and the rows of a collection have no place for these: name images or folders "
            "without lists, shards, --shard and --format, whose results have a PNG each."
        )
    if is_url(str(output)):
        raise ConfigError(f"--output {output} is a URL: give a folder, which all processes see.")
    output = Path(output)
    parts = PartFolder(output, format)
    containers = find_containers(inputs)
    plan = make_plan(predictor, containers, format=format, classes=classes, images=images_per_part)
    check_writable(output)
    hold_to(output, plan)
    units = [unit for container in containers for unit in container.units(images_per_part)]
    done = parts.done()
    left = [number for number in share_of(units, *share) if not done.get(number, UnitParts()).complete]
    parts.prepare(left)
    who = f"share {share[0] + 1}/{share[1]}: " if share[1] > 1 else ""
    logger.info("%s%d of %d pieces of work are left.", who, len(left), len(units))
    if threads is None:
        threads = max(2, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        if any(is_url(container.location) or _has_urls(container) for container in containers):
            threads = max(threads, FEWEST_FOR_URLS)
    begun, busy = time.perf_counter(), time.process_time()
    with tqdm(unit="image", disable=None) as bar:
        counts = detect_units(
            predictor,
            [(number, units[number]) for number in left],
            parts,
            images=images_per_part,
            done=done,
            classes=classes,
            threads=threads,
            told=_teller(who, begun, bar),
        )
    seconds = time.perf_counter() - begun
    cpus = (time.process_time() - busy) / seconds
    summary = CollectionSummary(counts, seconds, cpus, parts.finish(len(units)))
    if counts.images:
        logger.info("%s%s", who, describe(summary))
    if counts.failures:
        logger.warning("%s%d images could not be read: %s.", who, counts.failures, output / "failures")
    if summary.total is not None:
        logger.info(
            "The collection is complete: %d images, %d detections, %d parts in %s; %d could not be read%s.",
            summary.total["images"], summary.total["detections"], summary.total["parts"], output / "parts",
            summary.total["failures"], f" ({output / FAILURES})" if summary.total["failures"] else "",
        )  # fmt: skip
    elif not left:
        logger.info("%sdone; other shares are missing.", who)
    return summary


def describe(summary: CollectionSummary) -> str:
    """Throughput in a sentence: images per second, CPUs in use, what the network did meanwhile."""
    counts, seconds = summary.counts, summary.seconds
    return (
        f"{counts.images} images in {seconds:.1f} s, {counts.images / seconds:.1f} images/s; {summary.cpus:.2f} of "
        f"{usable_cpus()} CPUs in use; the network computed {counts.network / seconds:.0%} of the time and waited for "
        f"images {counts.waiting / seconds:.0%}."
    )


def _has_urls(container: object) -> bool:
    return any(map(is_url, getattr(container, "names", ())))


def _teller(who: str, begun: float, bar: tqdm) -> Callable[[Counts], None]:
    """Moves the bar, and logs a line a minute where nobody watches it."""
    last = begun

    def told(counts: Counts) -> None:
        nonlocal last
        now = time.perf_counter()
        bar.update(counts.images - bar.n)
        if bar.disable and now - last > TOLD_EVERY:
            last = now
            logger.info("%s%d images, %.1f images/s.", who, counts.images, counts.images / (now - begun))

    return told
