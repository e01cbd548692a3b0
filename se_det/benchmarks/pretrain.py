"""Pretraining's loader beside timm's, and its training steps with and without the loader."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..backbones import create_model
from ..classification.build import build_train_pipeline
from ..classification.data.dataset_factory import open_image_dataset
from ..classification.data.loader import train_loader
from ..classification.preprocessing import preprocessing
from ..device import reads_pinned_memory
from ..errors import ConfigError
from .steps import pretraining_steps, random_batch, recipe
from .timing import Comparison, time_alternately

OURS, THEIRS = "loader", "timm's loader"
STEPS, BOTH = "steps", "steps and loader"


def compare_pretraining(
    data: str, name: str, *, size: int, batch: int, workers: int, batches: int, repeat: int, device: str,
    bfloat16: bool = False, root: str = "",
) -> Iterator[Comparison]:  # fmt: skip
    """Seconds for `batches` batches, from files to normalised tensors on the device; and for as many training steps.

    Args:
        data: class folders, a list or shards; timm's loader is measured on class folders only, where it is installed.
        name: of the classifier, which is trained on crops and flips.
        size: px.
        batch: images per batch.
        workers: processes of each loader, which start and load a first batch before the time of each turn.

    Raises:
        ConfigError: timm's loader would have no batch of so few images.
        DataError: the data cannot be read.
    """
    images = open_image_dataset(data, root=root)
    cfg = recipe(batch=batch, size=size, device=device, classes=len(images.class_names), bfloat16=bfloat16)
    view, pin, look = (
        build_train_pipeline(cfg, images, seed=0),
        reads_pinned_memory(torch.device(device)),
        preprocessing(cfg),
    )
    steps = pretraining_steps(cfg, create_model(name, num_classes=cfg.MODEL.NUM_CLASSES))
    fixed = random_batch(cfg)

    def loader() -> Iterator[Any]:
        return iter(train_loader(images, view, num_workers=workers, pin_memory=pin))

    def load(given: Iterator[Any], count: int) -> None:  # to where timm's loader ends
        for one in itertools.islice(given, count):
            look.normalize(one.images.to(device, non_blocking=True))

    ways = {
        OURS: _Turn(loader, load, batches),
        STEPS: _Turn(lambda: itertools.repeat(fixed), steps, batches),
        BOTH: _Turn(loader, steps, batches),
    }
    timms = _timm_loader(data, size=size, batch=batch, workers=workers, device=torch.device(device))
    if timms is not None:
        ways[THEIRS] = _Turn(timms, lambda given, count: sum(1 for _ in itertools.islice(given, count)), batches)
    seconds = time_alternately(
        ways, context={way: turn.ready for way, turn in ways.items()}, repeat=repeat, device=device
    )
    title = f"{name}, {batches} batches of {batch} x {size}, {workers} workers{', bfloat16' if bfloat16 else ''}"
    for what, baseline, compared in (
        ("loading", THEIRS if THEIRS in ways else OURS, (THEIRS, OURS)),
        ("training", STEPS, (STEPS, BOTH)),
    ):
        chosen = {way: seconds[way] for way in compared if way in ways}
        yield Comparison(f"{title}: {what}", chosen, baseline, amount=batch * batches)


class _Turn:
    """Batches of a source that begins anew in every turn: it gives a first batch before the time, and ends after it.

    Args:
        source: begins.
        use: given what `source` returned and how many batches to take of it.
    """

    def __init__(
        self, source: Callable[[], Iterator[Any]], use: Callable[[Iterator[Any], int], object], batches: int
    ) -> None:
        self._source, self._use, self._batches = source, use, batches
        self._given: Iterator[Any] = iter(())

    @contextmanager
    def ready(self) -> Iterator[None]:
        self._given = self._source()
        self._use(self._given, 1)
        yield
        self._given = iter(())  # which ends the workers

    def __call__(self) -> None:
        self._use(self._given, self._batches)


def _timm_loader(
    data: str, *, size: int, batch: int, workers: int, device: torch.device
) -> Callable[[], Iterator[Any]] | None:
    """Begins timm's own loader, endless, with our crops and flips; None where timm is not or cannot read `data`."""
    try:
        from timm.data import create_dataset, create_loader
    except ImportError:
        return None
    if not Path(data).is_dir() or list(Path(data).glob("*.tar")):
        return None
    dataset = create_dataset("", root=data, is_training=True, batch_size=batch)
    if len(dataset) < batch:
        raise ConfigError(f"--batch {batch} is more than the {len(dataset)} images in {data}: give a smaller one.")

    def begin() -> Iterator[Any]:
        loader = create_loader(
            dataset, input_size=(3, size, size), batch_size=batch, is_training=True, use_prefetcher=True, hflip=0.5,
            color_jitter=0.0, auto_augment=None, re_prob=0.0, interpolation="bilinear", num_workers=workers,
            device=device, persistent_workers=workers > 0, pin_memory=device.type == "cuda",
        )  # fmt: skip
        while True:
            yield from loader

    return begin
