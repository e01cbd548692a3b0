"""Activations of gates on real images, averaged by class (Hu et al., arXiv 1709.01507, section 6.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..data.images import read_image
from ..data.listing import is_hidden, list_files
from ..errors import ConfigError, DataError
from ..layers.gates import Gate


@dataclass(frozen=True)
class GateStatistics:
    """Mean and deviation of every gate's channels over the images of each class.

    Args:
        classes: names of the folders, sorted.
        images: number of images of each class.
        mean, std: name of a gate -> (classes, channels), over the images. For CBAM those of its channel gate.
    """

    classes: list[str]
    images: list[int]
    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]

    def by_stage(self) -> dict[str, list[float]]:
        """Stage ("res2", or the first part of a gate's name) -> mean of each class over blocks and channels."""
        stages: dict[str, list[np.ndarray]] = {}
        for name, mean in self.mean.items():
            stages.setdefault(stage_of(name), []).append(mean.mean(1))
        return {stage: np.mean(rows, 0).tolist() for stage, rows in stages.items()}

    def by_gate(self) -> list[dict[str, Any]]:
        """What each gate tells apart: its mean, how far classes and images of a class differ, how many channels hang.

        `between` is the deviation of a channel's class means, `within` that of images of one class (roots of the mean
        squares over channels and classes); `by_class` the share of both together, as variances, that the class
        explains; `above_0.9` and `below_0.1` the shares of channels whose mean over the classes lies there.
        """
        rows = []
        for name, mean in self.mean.items():
            between, within = mean.var(0).mean(), (self.std[name] ** 2).mean()
            level = mean.mean(0)
            rows.append({
                "gate": name, "mean": float(level.mean()), "between": float(between**0.5),
                "within": float(within**0.5), "by_class": float(between / max(between + within, 1e-12)),
                "above_0.9": float((level > 0.9).mean()), "below_0.1": float((level < 0.1).mean()),
            })  # fmt: skip
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The statistics as plain values, for JSON."""
        return {
            "classes": self.classes,
            "images": self.images,
            "stages": self.by_stage(),
            "roles": self.by_gate(),
            "gates": {
                name: {"mean": self.mean[name].tolist(), "std": self.std[name].tolist()} for name in self.mean
            },
        }  # fmt: skip

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each gate, class and channel, for CSV."""
        for name, mean in self.mean.items():
            for c, label in enumerate(self.classes):
                for channel in range(mean.shape[1]):
                    yield {
                        "gate": name, "class": label, "channel": channel, "mean": float(mean[c, channel]),
                        "std": float(self.std[name][c, channel]),
                    }  # fmt: skip


def stage_of(gate: str) -> str:
    """The stage in a gate's name, "res2" of "res2.0.gate"; the first part of a name without one."""
    parts = gate.split(".")
    return next((part for part in parts if part.startswith("res") and part[3:].isdigit()), parts[0])


def collect_gate_statistics(
    trunk: nn.Module,
    folder: str | Path,
    *,
    size: int = 224,
    mean: Sequence[float],
    std: Sequence[float],
    channels: str = "RGB",
    batch: int = 16,
    limit: int | None = None,
) -> GateStatistics:
    """Run the images of class folders through a network and collect the activations of its gates.

    Images are resized to a short side of `size` * 256 / 224 and cropped to their centre of `size` x `size` px.

    Args:
        trunk: takes (N, 3, size, size); put into evaluation mode.
        folder: holds a folder of images for each class.
        mean, std: of the three channels on the 0..255 scale, in the order of `channels`.
        batch: images per forward pass.
        limit: number of images of each class, in the order of their names; None for all.

    Raises:
        ConfigError: the network has no gates.
        DataError: there are no class folders with images, or an image cannot be read.
    """
    gates = {name: module for name, module in trunk.named_modules() if isinstance(module, Gate)}
    if not gates:
        raise ConfigError("This network has no gates to look at: choose one with a gate, such as se_resnet50.")
    classes = class_folders(folder, limit)
    trunk.eval()
    shift = torch.tensor(mean).view(3, 1, 1)
    scale = torch.tensor(std).view(3, 1, 1)
    means: dict[str, list[np.ndarray]] = {name: [] for name in gates}
    deviations: dict[str, list[np.ndarray]] = {name: [] for name in gates}
    for files in classes.values():
        seen: dict[str, list[torch.Tensor]] = {name: [] for name in gates}
        for start in range(0, len(files), batch):
            images = [_read(path, size, channels) for path in files[start : start + batch]]
            x = (torch.stack(images).float() - shift) / scale
            with torch.no_grad(), _recording(gates, lambda name, s, seen=seen: seen[name].append(s)):
                trunk(x.to(next(trunk.parameters()).device))
        for name in gates:
            # A gate that the forward pass does not reach (of a stage after the last output) has no activations.
            if seen[name]:
                factors = torch.cat(seen[name]).double()
                means[name].append(factors.mean(0).numpy())
                deviations[name].append(factors.std(0, correction=0).numpy())
    return GateStatistics(
        classes=list(classes),
        images=[len(files) for files in classes.values()],
        mean={name: np.stack(rows) for name, rows in means.items() if rows},
        std={name: np.stack(rows) for name, rows in deviations.items() if rows},
    )


@contextmanager
def _recording(gates: dict[str, Gate], note: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Pass every gate's activations (N, C) to `note`, wherever the network calls its `scale`."""

    def recorder(name: str, scale: Callable) -> Callable:
        def record(grids: Sequence[torch.Tensor]) -> torch.Tensor:
            factors = scale(grids)
            note(name, factors.flatten(1).cpu())
            return factors

        return record

    try:
        for name, gate in gates.items():
            gate.scale = recorder(name, gate.scale)
        yield
    finally:
        for gate in gates.values():
            gate.__dict__.pop("scale", None)


def class_folders(folder: str | Path, limit: int | None = None) -> dict[str, list[Path]]:
    """Class name -> its images, sorted; at most `limit` of each.

    Raises:
        DataError: there is no such folder, or a class without images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: give one with a folder of images for each class.")
    classes = {
        path.name: [path / name for name in list_files(path).files[:limit]]
        for path in sorted(folder.iterdir())
        if path.is_dir() and not is_hidden(path.name)
    }
    empty = [name for name, files in classes.items() if not files]
    if not classes or empty:
        what = f"the class folder {folder / empty[0]} has no images" if empty else f"{folder} has no class folders"
        raise DataError(f"{what[0].upper()}{what[1:]}: give a folder of images (.jpg, .png, ...) for each class.")
    return classes


def _read(path: Path, size: int, channels: str) -> torch.Tensor:
    """(3, size, size) uint8."""
    pixels = Image.fromarray(np.ascontiguousarray(read_image(path, "RGB")))
    short = round(size * 256 / 224)
    ratio = short / min(pixels.size)
    width, height = (max(round(side * ratio), size) for side in pixels.size)
    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    array = np.asarray(pixels.crop((left, top, left + size, top + size)))
    array = array if channels == "RGB" else array[:, :, ::-1]
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
