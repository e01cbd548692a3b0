"""A trained detector in PyTorch and as exported files: time, memory and AP of each, in alternating turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from ..config import merge_overrides
from ..data.coco import read_coco
from ..data.images import read_image
from ..errors import ConfigError
from ..evaluation.figures import figures as judged
from ..inference import Predictor
from ..inference.exported import config_of_exported
from ..inference.runtimes import is_exported
from ..training.run import run_evaluation
from ..weights import config_of_checkpoint
from .timing import Comparison, time_processes_alternately

PRECISIONS = ("float32", "bfloat16")  # of PyTorch


def compare_runtimes(
    files: Sequence[str], *, val_json: str, val_images: str, images: int, repeat: int, device: str, ap: bool,
    folder: str,
) -> Iterator[Comparison]:  # fmt: skip
    """Seconds from decoded images, one at a time, to detections; each file in a process of its own.

    Args:
        files: a checkpoint, then exported files of it. The checkpoint in float32 is the baseline.
        val_json, val_images: COCO data.
        images: how many of them are detected in, in one turn.
        ap: whether each is evaluated as well, on all of the data.
        folder: where evaluations may write.

    Raises:
        ConfigError: the first file is no checkpoint, or another is one.
    """
    checkpoint, *exported = files
    if is_exported(checkpoint) or not all(map(is_exported, exported)):
        raise ConfigError("benchmark runtimes takes a checkpoint first, then files that were exported of it.")
    dataset = read_coco(val_json, val_images)
    paths = [str(dataset.image(at).path) for at in range(min(images, len(dataset)))]
    chosen = {f"PyTorch, {precision}": (checkpoint, precision) for precision in PRECISIONS}
    chosen |= {Path(file).name: (file, "") for file in exported}
    if len(chosen) < len(exported) + len(PRECISIONS):
        raise ConfigError("Two of the exported files have one name, by which the table tells them apart: rename one.")
    ways = {way: (_prepare, (*of, paths, device)) for way, of in chosen.items()}
    seconds, peaks, _ = time_processes_alternately(ways, repeat=repeat, device=device)
    figures = {}
    if ap:
        data = ["DATASETS.VAL_JSON", val_json, "DATASETS.VAL_IMAGES", val_images, "OUTPUT_DIR", folder]
        for way, (file, precision) in chosen.items():
            cfg = _config(file, precision, device)
            merge_overrides(cfg, data)
            found = judged(run_evaluation(cfg))
            figures[way] = {name.replace(" ", "/"): value for name, value in found.items()}
    yield Comparison(
        "detection from decoded images", seconds, next(iter(chosen)), peaks, amount=len(paths), figures=figures
    )


def _config(file: str, precision: str, device: str) -> CfgNode:
    if is_exported(file):
        return config_of_exported(file, ["MODEL.DEVICE", device])
    return config_of_checkpoint(file, ["MODEL.DEVICE", device, "TEST.PRECISION", precision], data=False)


def _prepare(file: str, precision: str, paths: list[str], device: str) -> Callable[[], None]:
    predictor = Predictor(_config(file, precision, device))
    pixels = [read_image(path) for path in paths]

    def run() -> None:
        for image in pixels:
            predictor.detect([predictor.sample(image)])

    return run
