"""Lists of samples, loaded by worker processes."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..errors import DataError
from ..memory import keep_freed_memory

Sample = dict[str, Any]


class Loader:
    """Iterates over lists of samples, or what is made of each list; each `iter` starts anew.

    Attributes:
        num_images: how many different images there are.
    """

    def __init__(
        self, samples: Any, batches: Any, *, num_images: int, num_workers: int, length: int | None = None,
        collate: Callable[[list[Any]], Any] | None = None, pin_memory: bool = False,
    ) -> None:  # fmt: skip
        """`samples`: map-style; `batches()`: an iterator of lists of its keys; `length`: how many, when they end.
        `collate` makes one thing of a list of samples, in the worker; without it lists are yielded."""
        self.num_images = num_images
        self._collate, self._pin_memory = collate, pin_memory
        self._samples, self._batches, self._num_workers, self._length = samples, batches, num_workers, length

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("A training loader has no end and so no length.")
        return self._length

    def __iter__(self) -> Iterator[list[Sample]]:
        with warnings.catch_warnings():
            # More workers than cores is the default's and the user's decision, not worth lines in every evaluation.
            warnings.filterwarnings("ignore", message=".*worker processes in total")
            loader = iter(
                DataLoader(
                    _Guarded(self._samples),
                    batch_sampler=_Batches(self._batches),
                    num_workers=self._num_workers,
                    collate_fn=_as_they_are if self._collate is None else _Together(self._collate),
                    worker_init_fn=_begin,
                    pin_memory=self._pin_memory,
                    generator=torch.Generator(),  # it draws a number that nothing uses: not from the run's own
                )
            )
        try:
            for batch in loader:
                yield [_received(sample) for sample in batch] if self._collate is None else _checked(batch)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"A process that loads images has died ({str(error).splitlines()[0]}). When memory ran out, lower "
                "DATALOADER.NUM_WORKERS; in a container give more shared memory (docker run --shm-size=8g)."
            ) from error
        finally:
            del loader  # its workers end now, not when an error's traceback is let go of


class _Batches:
    """What a DataLoader takes for a batch sampler."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return self._batches()


class _Failure:
    """A DataError on its way from a worker, which would arrive as a traceback in another error's text."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence


class _Guarded:
    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Any) -> Sample | _Failure:
        try:
            return self._samples[key]
        except DataError as error:
            return _Failure(str(error))


def _as_they_are(samples: list[Any]) -> list[Any]:
    return samples


class _Together:
    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        failure = next((sample for sample in samples if isinstance(sample, _Failure)), None)
        return self._collate(samples) if failure is None else failure


def _begin(number: int) -> None:
    # A SIGTERM to all processes of a run is for the one that saves; this one ends when that one does.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_freed_memory()


def _checked(batch: Any) -> Any:
    if isinstance(batch, _Failure):
        raise DataError(batch.sentence)
    return batch


def _received(sample: Sample | _Failure) -> Sample:
    """Ground truth travels as NumPy arrays, as each tensor on its way would hold a file descriptor open."""
    if isinstance(sample, _Failure):
        raise DataError(sample.sentence)
    return as_tensors(sample)


def as_tensors(value: Any) -> Any:
    """A sample's NumPy arrays as tensors that share their memory, at any depth of its dicts."""
    if isinstance(value, dict):
        return {key: as_tensors(item) for key, item in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
