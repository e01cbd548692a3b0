"""A classifier of ours beside timm's with the same weights: inference and training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

from ..backbones import create_model
from ..errors import ConfigError
from ..layers.fuse import fuse_for_inference
from ..weights import load_weights
from .steps import pretraining_steps, random_batch, recipe
from .timing import Comparison, time_processes_alternately

OURS, THEIRS = "se_det", "timm"
# The same network in both libraries.
PAIRS = {"se_resnet50": "seresnet50", "se_resnet152": "seresnet152", "resnet50": "resnet50", "resnet18": "resnet18"}
BATCHES = (1, 32)
IMAGES = 32  # of one turn of inference: a single image is over before the caches are warm


def compare_backbones(name: str, *, size: int, repeat: int, device: str, weights: str) -> Iterator[Comparison]:
    """Seconds of both libraries' `name`, each as is and in channels_last; of a training step in our loop, in
    channels_last.

    Args:
        name: of `PAIRS`.
        weights: a file that timm's weights are written to, from which ours are loaded.

    Raises:
        ConfigError: timm is not installed, or has no such network; or the two networks' results differ.
    """
    if name not in PAIRS:
        raise ConfigError(f"--model {name} is not in both libraries: use one of {', '.join(PAIRS)}.")
    _save_timms(name, weights)
    for batch in BATCHES:
        ways = {}
        for last in (False, True):
            for library in (THEIRS, OURS):
                given = (library, name, weights, batch, size, last, device)
                ways[f"{library}{', channels_last' if last else ''}"] = (_inference, given)
        seconds, peaks, results = time_processes_alternately(ways, repeat=repeat, device=device)
        _check_same(results)
        images = batch * _calls(batch)
        for last in ("", ", channels_last"):
            both = {way: seconds[way] for way in (THEIRS + last, OURS + last)}
            yield Comparison(f"{name}, inference, {batch} x {size}{last}", both, THEIRS + last, peaks, amount=images)
    ways = {library: (_training, (library, name, weights, BATCHES[-1], size, device)) for library in (THEIRS, OURS)}
    seconds, peaks, _ = time_processes_alternately(ways, repeat=repeat, device=device)
    title = f"{name}, training, {BATCHES[-1]} x {size}, channels_last"
    yield Comparison(title, seconds, THEIRS, peaks, amount=BATCHES[-1])


def _save_timms(name: str, path: str) -> None:
    try:
        import timm
    except ImportError:
        raise ConfigError("timm is not installed, beside which the backbone is measured: pip install timm.") from None
    torch.manual_seed(0)
    torch.save(timm.create_model(PAIRS[name]).state_dict(), path)


def _check_same(results: dict[str, np.ndarray]) -> None:
    reference = next(iter(results.values()))
    for way, result in results.items():
        error = float(np.abs(result - reference).max() / np.abs(reference).max())
        if not error < 1e-3:
            raise ConfigError(f"The results of {way} differ from {next(iter(results))}'s by {error:.1e}.")


def _make(library: str, name: str, weights: str, device: str) -> nn.Module:
    if library == THEIRS:
        import timm

        model = timm.create_model(PAIRS[name])
        model.load_state_dict(torch.load(weights, weights_only=True))
    else:
        model = create_model(name, num_classes=1000)
        load_weights(model, weights)
    return model.to(device)


def _calls(batch: int) -> int:
    return max(IMAGES // batch, 1)


def _inference(
    library: str, name: str, weights: str, batch: int, size: int, last: bool, device: str
) -> Callable[[], object]:  # fmt: skip
    layout = torch.channels_last if last else torch.contiguous_format
    model = _make(library, name, weights, device).eval().requires_grad_(False)
    if library == OURS:
        fuse_for_inference(model)
    else:
        model.to(memory_format=layout)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, size, size, generator=generator).to(device).contiguous(memory_format=layout)

    def run() -> np.ndarray:
        with torch.no_grad():
            for _ in range(_calls(batch)):
                result = model(x)
        return result.cpu().numpy()

    return run


def _training(library: str, name: str, weights: str, batch: int, size: int, device: str) -> Callable[[], object]:
    cfg = recipe(batch=batch, size=size, device=device)
    steps = pretraining_steps(cfg, _make(library, name, weights, device))
    return partial(steps, itertools.repeat(random_batch(cfg)))
