"""How many images a second the loader gives, the network takes, and both together do; beside timm's loader."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from ..errors import ConfigError
from ..training.precision import Precision
from .batches import Batch, TrainingView, train_loader
from .losses import ClassificationLoss
from .objective import Objective
from .preprocessing import Preprocessing
from .sources import open_images
from .transforms import ImageSizes, RandomCrop, augmentation

VIEW = Preprocessing()


def measure(
    data: str, model: nn.Module, *, size: int, batch: int, workers: int, batches: int, repeat: int,
    device: torch.device, bfloat16: bool = False, root: str = "",
) -> dict[str, list[float]]:  # fmt: skip
    """Images per second of each, `repeat` times in turn, so that what else the machine does is shared out.

    Args:
        data: class folders, a list or shards; timm's loader is measured on class folders only, where it is installed.
        model: a classifier; it is trained, with SGD, on crops and flips.
        batches: of each measurement; one more before them starts workers and fills queues.

    Returns:
        Name to images per second of each repetition: "loader", "timm loader", "model", "both".
    """
    images = open_images(data, root=root)
    view = TrainingView(
        seed=0, ims_per_batch=batch, steps_per_epoch=len(images) / batch, sizes=ImageSizes(size),
        crop=RandomCrop(scale=(0.08, 1.0), ratio=(0.75, 4 / 3)), augment=augmentation(flip=0.5),
    )  # fmt: skip

    def loader() -> Iterator[Batch]:
        return iter(train_loader(images, view, num_workers=workers, pin_memory=device.type == "cuda"))

    objective = Objective(model, loss=ClassificationLoss(), mean=VIEW.mean, std=VIEW.std, channels_last=True)
    objective.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    precision = Precision(enabled=bfloat16, dtype="bfloat16", device_type=device.type)

    def step(given: Batch) -> None:
        with precision.autocast():
            loss = objective(given)["loss_cls"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def normalised(given: Batch) -> None:  # as timm's loader gives them
        VIEW.normalise(given.images.to(device, non_blocking=True))

    fixed = next(loader())
    ways: dict[str, Callable[[], tuple[Iterator, Callable]]] = {
        "loader": lambda: (loader(), normalised),
        "model": lambda: (iter([fixed] * (batches + 1)), step),
        "both": lambda: (loader(), step),
    }
    timms = _timm_loader(data, size=size, batch=batch, workers=workers, device=device)
    if timms is not None:
        ways["timm loader"] = lambda: (_endless(timms), lambda given: None)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            source, use = way()
            speeds[name].append(batch * batches / _seconds(source, use, batches, device))
            del source
    return speeds


def _seconds(source: Iterator, use: Callable, batches: int, device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    use(next(source))
    wait()
    start = time.perf_counter()
    for _ in range(batches):
        use(next(source))
    wait()
    return time.perf_counter() - start


def _timm_loader(data: str, *, size: int, batch: int, workers: int, device: torch.device):
    """timm's own loader with the same crops and flips; None where it is not installed or cannot read `data`."""
    try:
        from timm.data import create_dataset, create_loader
    except ImportError:
        return None
    if not Path(data).is_dir() or list(Path(data).glob("*.tar")):
        return None
    dataset = create_dataset("", root=data, is_training=True, batch_size=batch)
    if len(dataset) < batch:
        raise ConfigError(f"--batch {batch} is more than the {len(dataset)} images in {data}: give a smaller one.")
    return create_loader(
        dataset, input_size=(3, size, size), batch_size=batch, is_training=True, use_prefetcher=True, hflip=0.5,
        color_jitter=0.0, auto_augment=None, re_prob=0.0, interpolation="bilinear", num_workers=workers, device=device,
        persistent_workers=False, pin_memory=device.type == "cuda",
    )  # fmt: skip


def _endless(loader) -> Iterator:
    while True:
        yield from loader


def table(speeds: dict[str, list[float]]) -> list[str]:
    """Lines that say the medians, the ranges, and the ratio to timm's loader, of the repetitions' own pairs."""
    lines = [
        f"{name:12s} {statistics.median(values):9.1f} images/s ({min(values):.1f} to {max(values):.1f})"
        for name, values in speeds.items()
    ]
    if "timm loader" in speeds:
        ratios = [ours / theirs for ours, theirs in zip(speeds["loader"], speeds["timm loader"])]
        lines.append(
            f"the loader gives {statistics.median(ratios):.2f} times the images of timm's ({min(ratios):.2f} to "
            f"{max(ratios):.2f})"
        )
    return lines
