"""From a detector and its validation data to an int8 file with what it cost."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from ...config import get_cfg, merge_overrides
from ...data.coco import CocoDataset
from ...data.loader import build_test_loader
from ...data.worker_loader import worker_death_as_error
from ...errors import DataError, ExportError, SeDetError
from ...inference.exported import ExportedDetector, config_of_exported, open_exported
from ...inference.runtimes import reason
from ...training.build import set_backend_flags
from ...training.datasets import test_datasets
from ...training.preemption import stop_on_signals
from ...training.resolve import check_exported_classes, resolve_evaluation
from ...training.run import Evaluation
from ...training.run_log import run_log
from ..formats.registry import require
from ..networks import Exportable
from ..writing import check_place, place, write
from .cost import change, check_judges
from .registry import QUANTISERS
from .search import Quantised, Quantiser, quantise

logger = logging.getLogger(__name__)


def write_int8(
    network: Exportable, path: str | Path, *, data: Sequence[Any], images: int = 100, allowed: float = 0.5
) -> Quantised:
    """Export a detector with layers of 8-bit whole numbers, and log what it is worth beside float32.

    Args:
        network: of `export.detector`.
        path: .xml, by NNCF, or .onnx, by ONNX Runtime.
        data: `[key, value, ...]`, which name what is evaluated on (DATASETS, DATALOADER, TEST.EVALUATORS). Some of its
            images calibrate, all of them judge.
        images: how many calibrate at most.
        allowed: see `quantise`.

    Raises:
        ExportError: see `write`; or no quantiser takes such files, it fails, there is no data, or more than `allowed`
            is lost.
        ConfigError, DataError: the data is damaged, of other classes, or has no annotations.
        TrainingError: a signal ended it. Nothing is written in any of these cases.
    """
    path = Path(path)
    if path.suffix not in QUANTISERS.names():
        raise ExportError(f"{path} cannot be int8: use {' or '.join(QUANTISERS.names())}.")
    if "architecture" not in network.metadata:
        raise ExportError(f"{path} cannot be int8: only a whole detector is, whose AP says what that costs.")
    kind = QUANTISERS.get(path.suffix)
    require("int8 files", kind.install, *kind.packages)
    check_place(path)
    with run_log(), stop_on_signals(f"before {path} was written.") as stop, worker_death_as_error():
        _check_data(network, data)
        with tempfile.TemporaryDirectory(prefix="se_det_int8_") as folder:
            plain, made = Path(folder, f"float32{path.suffix}"), Path(folder, "int8", path.name)
            made.parent.mkdir()
            write(network, plain)
            cfg = config_of_exported(plain)
            merge_overrides(cfg, [*data, "OUTPUT_DIR", f"{folder}/evaluation"])
            cfg, facts = resolve_evaluation(cfg)
            set_backend_flags(cfg)
            evaluation = Evaluation(cfg, facts.test, stop)
            sets = list(facts.test.values())
            logger.info("Evaluating in float32.")
            before = evaluation(facts.exported)
            check_judges(before, allowed, ", ".join(str(dataset.json_path) for dataset in sets))
            inputs = list(calibration(cfg, facts.exported, sets, images))
            logger.info("Calibrating on %d of %d images.", len(inputs), sum(map(len, sets)))
            quantiser = _Told(kind, plain, inputs, path)
            found = quantise(
                quantiser, made, lambda file: evaluation(open_exported(file, facts.device.type)), before,
                allowed=allowed,
            )  # fmt: skip
            if not found.lost <= allowed:
                raise ExportError(
                    f"{path} is not written: the best of what was tried loses more than {allowed:g} points "
                    f"({change(found.before, found.after)}). Calibrate with more images (--calibration-images), allow "
                    f"more (--max-loss), quantise to another format ({_others(path)}), or leave --int8 out."
                )
            place(made, path)
    logger.info("%s: %s.", path, found)
    return found


def calibration(
    cfg: CfgNode, model: ExportedDetector, sets: Sequence[CocoDataset], most: int
) -> Iterator[list[np.ndarray]]:
    """The inputs of an exported detector for images of data sets, evenly spaced in them, one image at a time."""
    total = sum(map(len, sets))
    chosen = np.linspace(0, total - 1, min(most, total)).round().astype(int)
    start = 0
    for dataset in sets:
        own = chosen[(chosen >= start) & (chosen < start + len(dataset))] - start
        start += len(dataset)
        for samples in build_test_loader(cfg, dataset.subset(own)) if len(own) else ():
            for sample in samples:
                yield model.inputs([sample])[0]


def _check_data(network: Exportable, data: Sequence[Any]) -> None:
    """Refuse data that cannot judge, before the minutes that an export takes.

    Raises:
        ExportError: there is none.
        ConfigError: it is of other classes.
        DataError: it cannot be used, or has no image or no annotation.
    """
    cfg = get_cfg()
    merge_overrides(cfg, data)
    sets = test_datasets(cfg)
    if not sets:
        raise ExportError(
            "--int8 calibrates and is judged on validation images, and there are none: give --val-json and "
            "--val-images (DATASETS.VAL_JSON and DATASETS.VAL_IMAGES)."
        )
    for dataset in sets.values():
        if not len(dataset):
            raise DataError(f"{dataset.json_path} has no image to calibrate with: give data with images.")
        if dataset.category_ids and not dataset.has_annotations():
            raise DataError(
                f"{dataset.json_path} has no annotations (crowds do not count), so nothing says what int8 costs: give "
                "annotated images, --val-json and --val-images."
            )
    check_exported_classes("The network has", network.metadata, next(iter(sets.values())))


class _Told:
    """A quantiser whose failures are sentences.

    Raises:
        ExportError: it fails, or the network has no layer that it can quantise.
    """

    def __init__(self, kind: Any, source: Path, inputs: Sequence[Sequence[np.ndarray]], path: Path) -> None:
        self._path = path
        self._quantiser: Quantiser = self._try(lambda: kind(source, inputs))
        self.layers = self._quantiser.layers
        if not self.layers:
            raise ExportError(f"{path} cannot be int8: the network has no layer with weights. Leave --int8 out.")

    def write(self, path: Path, kept: Sequence[str]) -> None:
        self._try(lambda: self._quantiser.write(path, kept))

    def _try(self, do: Any) -> Any:
        try:
            return do()
        except SeDetError:
            raise
        except Exception as error:  # of many kinds, all the quantisers' own
            raise ExportError(
                f"{self._path} is not written, as its quantiser fails: {type(error).__name__}, {reason(error)}. "
                f"Quantise to another format ({_others(self._path)}), or leave --int8 out."
            ) from error


def _others(path: Path) -> str:
    return ", ".join(name for name in QUANTISERS.names() if name != path.suffix)
