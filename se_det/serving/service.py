"""A detector that many callers share: admitted up to a number, decoded beside each other, detected in one thread."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ..errors import ConfigError
from ..inference import Predictor
from ..inference.tiled import detect_tiled
from ..system import usable_cpus
from .answers import Wish, as_json, as_picture
from .batching import Batcher
from .limits import Limits
from .metrics import Metrics
from .pictures import read_picture
from .refusal import Refusal

P = ParamSpec("P")
T = TypeVar("T")

HELPERS = 4  # threads that decode, encode and draw; each may hold an image of `Limits.max_pixels`
AHEAD = 4  # batches of decoded images that wait for the model; all others wait as files
RETRY_AFTER = (1, 60)  # s, what a caller is told at least and at most
WARM_UP = (480, 640)  # px, height and width


class DetectionService:
    """
    Args:
        predictor: what detects; its `TEST.IMS_PER_BATCH` is how many images are detected in at once.
        limits: what is taken.

    Attributes:
        waiting: requests that were admitted and are not answered yet.
        metrics: what was done so far.

    Raises:
        ConfigError: the model finds no objects.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        if predictor.cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
            raise ConfigError(
                "MODEL.META_ARCHITECTURE is SemanticSegmentor, which labels pixels, and the server answers with "
                "objects: use se-det predict."
            )
        self.predictor, self.limits = predictor, limits
        self.waiting = 0
        self.metrics = Metrics(lambda: self.waiting)
        self.batch = predictor.cfg.TEST.IMS_PER_BATCH
        self._batcher: Batcher[Mapping[str, Any] | np.ndarray, dict[str, Any]] = Batcher(
            self._detect,
            kind=_shape,
            size=self.batch,
            wait=limits.wait,
            report=self.metrics.add_batch,
        )
        self._helpers = ThreadPoolExecutor(min(HELPERS, usable_cpus()), thread_name_prefix="pictures")
        self._ahead = asyncio.Semaphore(AHEAD * self.batch)

    def warm_up(self) -> None:
        """Detect in a grey image, so that what cannot work shows before there are callers, and the first of them does
        not wait for what is done once."""
        self.predictor(np.full((*WARM_UP, 3), 128, np.uint8))

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._batcher.start()

    async def stop(self) -> None:
        """End. Who still waits is told that its work was cancelled."""
        await self._batcher.stop()
        self._helpers.shutdown()

    @property
    def ready(self) -> bool:
        """Whether another request would be admitted and answered."""
        return self._batcher.running and self.waiting < self.limits.queue

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Inside, a request counts as one that waits.

        Raises:
            Refusal: 503, as many as may are waiting already.
        """
        if self.waiting >= self.limits.queue:
            seconds = self._expected_wait()
            raise Refusal(
                503,
                f"{self.waiting} requests are waiting already, as many as this server holds: try again in {seconds} s.",
                retry_after=seconds,
            )
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def _expected_wait(self) -> int:
        """Whole seconds until those that wait now are answered, by what the images so far took."""
        images = self.metrics.batch_size.sum
        each = self.metrics.model_seconds.sum / images if images else 0.0
        return min(max(math.ceil(self.waiting * each), RETRY_AFTER[0]), RETRY_AFTER[1])

    async def answer(self, body: bytes, wish: Wish) -> bytes:
        """What is wanted of an image file.

        Raises:
            Refusal: it is no image, or a too large one.
        """
        async with self._ahead:
            size, sample = await self._help(self._prepare, body)
            instances = await self._batcher(sample)
        if wish.media_type == "application/json":
            content, count = await self._help(as_json, instances, size, wish, self.predictor)
        else:
            content, count = await self._help(self._draw, body, instances, wish)
        self.metrics.detections += count
        return content

    def _prepare(self, body: bytes) -> tuple[tuple[int, int], Mapping[str, Any] | np.ndarray]:
        pixels = read_picture(body, self.limits.max_pixels)
        return pixels.shape[:2], pixels if self.predictor.window_sampler else self.predictor.sample(pixels)

    def _detect(self, samples: list[Mapping[str, Any] | np.ndarray]) -> list[dict[str, Any]]:
        if self.predictor.window_sampler:  # under TEST.TILE an image's windows are its batches
            return [detect_tiled(self.predictor, pixels).instances for pixels in samples]
        return self.predictor.detect(samples)

    def _draw(self, body: bytes, instances: Mapping[str, Any], wish: Wish) -> tuple[bytes, int]:
        # Decoded once more: pixels of all that wait would take more memory than their files by far.
        return as_picture(instances, read_picture(body, self.limits.max_pixels), wish, self.predictor)

    async def _help(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._helpers, lambda: call(*args, **kwargs))


def _shape(sample: Mapping[str, Any] | np.ndarray) -> tuple[int, ...]:
    return sample.shape if isinstance(sample, np.ndarray) else tuple(sample["image"].shape)
