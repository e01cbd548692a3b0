"""Lists of samples, loaded by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..allocator import keep_freed_memory
from ..errors import DataError
from ..internals.temp_folder import OwnTempFolder
from ..plugins import PluginFiles
from .skipping import ReplacedSample, SkippedImages

Sample = dict[str, Any]


class Loader:
    """Iterates over lists of samples, or what is made of each list; each `iter` starts anew.

    Attributes:
        num_images: how many different images there are.
    """

    def __init__(
        self, samples: Any, batches: Any, *, num_images: int, num_workers: int, length: int | None = None,
        collate: Callable[[list[Any]], Any] | None = None, pin_memory: bool = False,
        skipped: SkippedImages | None = None,
    ) -> None:  # fmt: skip
        """`samples`: map-style; `batches()`: an iterator of lists of its keys; `length`: how many, when they end.
        `collate` makes one thing of a list of samples, in the worker; without it lists are yielded.
        `skipped` counts what samples were replaced for, see `skipping`."""
        self.num_images = num_images
        self._collate, self._pin_memory, self._skipped = collate, pin_memory, skipped or SkippedImages()
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
                    _ErrorsAsValues(self._samples),
                    batch_sampler=_Batches(self._batches),
                    num_workers=self._num_workers,
                    collate_fn=_Collate(self._collate),
                    worker_init_fn=_begin,
                    pin_memory=self._pin_memory,
                    generator=torch.Generator(),  # it draws a number that nothing uses: not from the run's own
                )
            )
        try:
            with worker_death_as_error():
                for batch in loader:
                    yield self._received(batch)
        finally:
            del loader  # its workers end now, not when an error's traceback is let go of

    def keys(self) -> Iterator[Sequence[Any]]:
        """The keys of each list, of which nothing is loaded."""
        return self._batches()

    def load(self, keys: Sequence[Any]) -> Any:
        """What these keys give, loaded in this process.

        Raises:
            DataError: as while iterating.
        """
        samples = _ErrorsAsValues(self._samples)
        return self._received(_Collate(self._collate)([samples[key] for key in keys]))

    def _received(self, batch: _Loaded | _Failure) -> Any:
        if isinstance(batch, _Failure):
            raise DataError(batch.sentence)
        self._skipped.record(batch.found)
        # Ground truth travels as NumPy arrays, as each tensor on its way would hold a file descriptor open.
        return [to_tensors(sample) for sample in batch.samples] if self._collate is None else batch.samples


@contextmanager
def worker_death_as_error() -> Iterator[None]:
    """The death of a worker becomes one sentence inside. PyTorch raises it wherever the run is just then.

    Raises:
        DataError: in place of PyTorch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"A process that loads images has died ({str(error).splitlines()[0]}). When memory ran out, lower "
            "DATALOADER.NUM_WORKERS; in a container give more shared memory (docker run --shm-size=8g)."
        ) from error


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


class _Loaded(NamedTuple):
    """Samples, or what was made of them, and the bad images that they were loaded without."""

    samples: Any
    found: dict[int, str]


class _ErrorsAsValues:
    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[PluginFiles, Any]]:
        # Unpickled in this order by a worker that was spawned: samples may hold objects of plugins' classes.
        return _restored, (PluginFiles(), self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Any) -> Sample | ReplacedSample | _Failure:
        try:
            return self._samples[key]
        except DataError as error:
            return _Failure(str(error))


def _restored(plugins: PluginFiles, samples: Any) -> _ErrorsAsValues:
    return _ErrorsAsValues(samples)


class _Collate:
    def __init__(self, collate: Callable[[list[Any]], Any] | None) -> None:
        self._collate = collate

    def __call__(self, samples: list[Any]) -> _Loaded | _Failure:
        found: dict[int, str] = {}
        kept = []
        for sample in samples:
            if isinstance(sample, _Failure):
                return sample
            if isinstance(sample, ReplacedSample):
                found |= sample.found
                sample = sample.sample
            kept.append(sample)
        if any(sample is None for sample in kept):  # more were found than may be: it goes no further than this
            return _Loaded([], found)
        return _Loaded(kept if self._collate is None else self._collate(kept), found)


def _begin(number: int) -> None:
    keep_freed_memory()
    _follow_parent()


def _follow_parent() -> None:
    """Make a worker end when its parent says so or is no more, and not by a signal to all processes of a run.

    Without it a Ctrl-C or a scheduler's SIGTERM takes the workers from a run that is about to save, and the workers of
    a run that was killed can wait for ever to hand over a batch. Where a signal does not tell who sent it (macOS,
    Windows), SIGTERM ends a worker whoever sends it.
    """
    parent, before = multiprocessing.parent_process(), os.getppid()
    folder = OwnTempFolder()
    can_wait = hasattr(signal, "sigtimedwait")
    signals = {signal.SIGTERM, signal.SIGINT}
    if can_wait:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        # The first tells at once of a parent that forked this process, the second of one that had it forked.
        while os.getppid() == before and parent.is_alive():
            if not can_wait:
                time.sleep(1.0)
                continue
            told = signal.sigtimedwait(signals, 1.0)
            if told is not None and told.si_pid == parent.pid:
                os._exit(0)
        folder.remove()  # of the socket it hands tensors over by
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def to_tensors(value: Any) -> Any:
    """A sample's NumPy arrays as tensors that share their memory, at any depth of its dicts."""
    if isinstance(value, dict):
        return {key: to_tensors(item) for key, item in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
