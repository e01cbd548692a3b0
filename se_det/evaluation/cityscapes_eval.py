"""Cityscapes' own evaluation of instances and of classes of pixels, by its package cityscapesscripts."""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fvcore.common.config import CfgNode

from .. import comm
from ..data.named.cityscapes import IMAGE, LABELS, THINGS
from ..detection.rcnn import paste_detections
from ..detection.sem_seg_head import pixel_labels
from ..errors import ConfigError, DataError
from ..files import write_json
from ..inference.coco_results import to_coco_results
from ..inference.panoptic_files import write_label_png
from .evaluator import EVALUATORS
from .ground_truth import without_nan
from .metrics_outcome import MetricsOutcome

if TYPE_CHECKING:
    from ..data.coco import CocoDataset

PACKAGE = "cityscapesscripts.evaluation"

logger = logging.getLogger(__name__)


def package(module: str, evaluator: str) -> Any:
    """A module of the package's evaluation.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(f"{PACKAGE}.{module}")
    except ImportError as error:
        raise ConfigError(
            f"TEST.EVALUATORS {evaluator} computes with the package cityscapesscripts ({error}): pip install "
            "'se_det[cityscapes]', or evaluate by other rules, TEST.EVALUATORS \"['coco']\" or \"['sem_seg']\"."
        ) from error


class CityscapesEvaluator:
    """What both have in common: predictions are kept on disk, on the first process written and compared.

    Args:
        dataset: of `cityscapes_fine_*`.
        output_folder: the run's, where `inference/cityscapes_metrics.json` is written.
    """

    module = ""
    evaluator = ""
    ending = ""

    def __init__(self, dataset: CocoDataset, output_folder: str | Path | None = None) -> None:
        self.script = package(self.module, self.evaluator)
        self.dataset = dataset
        self.output_folder = None if output_folder is None else Path(output_folder)
        images = dataset.images_folder.absolute()
        self.truth = images.parent.parent / "gtFine" / images.name
        self.files: dict[Hashable, Path] = {}
        for index in range(len(dataset)):
            info = dataset.image(index)
            name = info.path.relative_to(images).with_suffix("").as_posix().removesuffix(IMAGE) + self.ending
            self.files[info.id] = self.truth / name
        missing = [path for path in self.files.values() if not path.is_file()]
        if missing:
            raise DataError(f"{len(missing)} files of Cityscapes' truth are not there: {missing[0]}, ....")
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._found: dict[Hashable, Any] = {}
        self.outcome: MetricsOutcome | None = None

    def process(self, samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take the model's outputs. An image seen before is passed over."""
        for sample, output in zip(samples, outputs, strict=True):
            if sample["image_id"] not in self._found:
                self._found[sample["image_id"]] = self._kept(output)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather, write, score by the package, and log. Every process must call it.

        Returns:
            The metrics by task and name, in percent, on the first process, `{}` elsewhere.
        """
        found: dict[Hashable, Any] = {}
        for part in comm.gather(self._found):
            found = {**part, **found}
        if not comm.is_main_process():
            return {}
        with tempfile.TemporaryDirectory(prefix="se_det_cityscapes_") as folder:
            place = Path(folder)
            pairs = [(self._write(place, path, found.get(image)), str(path)) for image, path in self.files.items()]
            args = self.script.args
            args.predictionPath, args.predictionWalk = str(place), None
            args.JSONOutput, args.colorized, args.quiet = False, False, True
            args.gtInstancesFile = str(place / "gtInstances.json")
            results = self.script.evaluateImgLists([one for one, _ in pairs], [other for _, other in pairs], args)
        metrics = self._metrics(results)
        for task, values in metrics.items():
            logger.info("%s (Cityscapes): %s", task, ", ".join(f"{name} {x:.3f}" for name, x in values.items()))
        if self.output_folder is not None:
            path = self.output_folder / "inference" / "cityscapes_metrics.json"
            write_json(path, without_nan(metrics), indent=2)
        self.outcome = MetricsOutcome(f"Cityscapes' own evaluation ({self.evaluator})", metrics)
        return metrics

    def _kept(self, output: Mapping[str, Any]) -> Any:
        """What is kept of an image's output."""
        raise NotImplementedError

    def _write(self, folder: Path, truth: Path, found: Any) -> str:
        """Write an image's prediction, and return the file that the package is to be given."""
        raise NotImplementedError

    def _metrics(self, results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        raise NotImplementedError


class CityscapesInstanceEvaluator(CityscapesEvaluator):
    """AP and AP50 of masks."""

    module = "evalInstanceLevelSemanticLabeling"
    evaluator = "cityscapes_instance"
    ending = "_gtFine_instanceIds.png"
    metrics = ("segm/AP", "segm/AP50")

    def _kept(self, output: Mapping[str, Any]) -> list[dict[str, Any]]:
        ids = [thing.id for thing in THINGS]
        pasted = paste_detections(output["instances"])
        return to_coco_results(pasted, image_id=0, category_ids=ids, masks=True)[0]

    def _write(self, folder: Path, truth: Path, found: list[dict[str, Any]] | None) -> str:
        from pycocotools import mask as mask_tools

        stem, lines = truth.name.removesuffix(self.ending), []
        for number, one in enumerate(found or ()):
            name = f"{stem}_{number}.png"
            write_label_png(folder / name, mask_tools.decode(one["segmentation"]) * np.uint8(255))
            lines.append(f"{name} {one['category_id']} {one['score']}\n")
        path = folder / f"{stem}_pred.txt"
        path.write_text("".join(lines), encoding="utf-8")
        return str(path)

    def _metrics(self, results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        means = results["averages"]
        return {"segm": {"AP": float(means["allAp"]) * 100, "AP50": float(means["allAp50%"]) * 100}}


class CityscapesSemSegEvaluator(CityscapesEvaluator):
    """IoU and iIoU of classes, and of their groups."""

    module = "evalPixelLevelSemanticLabeling"
    evaluator = "cityscapes_sem_seg"
    ending = "_gtFine_labelIds.png"
    metrics = ("sem_seg/IoU", "sem_seg/iIoU", "sem_seg/IoU_sup", "sem_seg/iIoU_sup")

    def _kept(self, output: Mapping[str, Any]) -> np.ndarray:
        labels = pixel_labels(output["sem_seg"]).cpu().numpy()
        return np.array([label.id for label in LABELS], np.uint8)[labels]

    def _write(self, folder: Path, truth: Path, found: np.ndarray | None) -> str:
        path = folder / f"{truth.name.removesuffix(self.ending)}_pred.png"
        if found is None:
            raise DataError(f"The image of {truth} was not given to the model, and Cityscapes' evaluation needs all.")
        write_label_png(path, found)
        return str(path)

    def _metrics(self, results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        names = {
            "IoU": "averageScoreClasses", "iIoU": "averageScoreInstClasses", "IoU_sup": "averageScoreCategories",
            "iIoU_sup": "averageScoreInstCategories",
        }  # fmt: skip
        return {"sem_seg": {name: 100.0 * float(results[key]) for name, key in names.items()}}


@EVALUATORS.register(name="cityscapes_instance")
def cityscapes_instance(cfg: CfgNode, dataset: CocoDataset, folder: str | Path | None) -> CityscapesInstanceEvaluator:
    """Masks of instances."""
    if not cfg.MODEL.MASK_ON:
        raise ConfigError(
            "TEST.EVALUATORS cityscapes_instance needs masks, and MODEL.MASK_ON is False: set it True, or TEST."
            "EVALUATORS \"['coco']\"."
        )
    return CityscapesInstanceEvaluator(dataset, folder)


@EVALUATORS.register(name="cityscapes_sem_seg")
def cityscapes_sem_seg(cfg: CfgNode, dataset: CocoDataset, folder: str | Path | None) -> CityscapesSemSegEvaluator:
    """Classes of pixels."""
    return CityscapesSemSegEvaluator(dataset, folder)
