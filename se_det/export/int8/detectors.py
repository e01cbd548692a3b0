"""From a detector and its validation data to an int8 file with what it cost."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np

from ...config import merge_overrides
from ...data.coco import read_coco
from ...data.images import read_image
from ...errors import ExportError
from ...files import atomic_write
from ...inference import Predictor
from ...inference.exported import config_of_exported
from ...training.run import run_evaluation
from ..networks import Exportable
from ..writing import write
from .registry import QUANTISERS
from .search import Quantised, change, quantise

logger = logging.getLogger(__name__)


def write_int8(
    network: Exportable, path: str | Path, *, val_json: str | Path, val_images: str | Path, images: int = 100,
    allowed: float = 0.5,
) -> Quantised:  # fmt: skip
    """Export a detector with layers of 8-bit whole numbers, and log its AP beside that in float32.

    Args:
        network: of `export.detector`.
        path: .xml, by NNCF, or .onnx, by ONNX Runtime.
        val_json, val_images: COCO data: some of its images calibrate, all of them tell the AP.
        images: how many calibrate at most.
        allowed: see `quantise`.

    Raises:
        ExportError: see `write`; or no quantiser takes such files.
    """
    path = Path(path)
    if path.suffix not in QUANTISERS.names():
        raise ExportError(f"{path} cannot be int8: use {' or '.join(QUANTISERS.names())}.")
    if "counts" not in network.outputs or {"sem_seg", "objectness_logits"} & set(network.outputs):
        raise ExportError(
            f"{path} cannot be int8: what that costs is judged by the AP of boxes, masks and keypoints, which says "
            f"nothing of the outputs {', '.join(network.outputs)}. Leave --int8 out."
        )
    with tempfile.TemporaryDirectory(prefix="se_det_int8_") as folder:
        plain, made = Path(folder) / f"float32{path.suffix}", Path(folder) / path.name
        write(network, plain)

        def evaluate(file: Path) -> dict[str, dict[str, float]]:
            cfg = config_of_exported(file)
            data = ["DATASETS.VAL_JSON", str(val_json), "DATASETS.VAL_IMAGES", str(val_images)]
            merge_overrides(cfg, [*data, "OUTPUT_DIR", f"{folder}/evaluation"])
            return run_evaluation(cfg)

        quantiser = QUANTISERS.get(path.suffix)(plain, calibration(plain, Path(val_json), Path(val_images), images))
        found = quantise(quantiser, made, evaluate, evaluate(plain), allowed=allowed)
        for part in sorted(Path(folder).glob(f"{path.stem}.*"), key=lambda part: part == made):
            data = part.read_bytes()
            atomic_write(path.with_name(part.name), lambda file, data=data: file.write(data))
    logger.info(
        "%s: %d of %d layers in int8, in float32 %s: %s.", path, *found.layers,
        ", ".join(found.kept) or "none of the suspects", change(found.before, found.after),
    )  # fmt: skip
    return found


def calibration(file: Path, val_json: Path, val_images: Path, most: int) -> list[list[np.ndarray]]:
    """The inputs of an exported detector for images of a data set, evenly spaced in it, one at a time."""
    predictor = Predictor(file)
    dataset = read_coco(val_json, val_images)
    count = min(most, len(dataset))
    if not count:
        raise ExportError(f"{val_json} has no image to calibrate with.")
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    return [predictor.model.inputs([predictor.sample(read_image(dataset.image(at).path))])[0] for at in chosen]
