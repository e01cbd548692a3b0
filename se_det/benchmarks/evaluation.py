"""COCO evaluation of a made-up result set of the size of val2017's, beside pycocotools and faster-coco-eval."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..evaluation.coco_metrics import SUMMARY, coco_metrics
from ..evaluation.ground_truth import GroundTruth
from .timing import Comparison, time_alternately

CLASSES = 80
Entry = dict[str, Any]

logger = logging.getLogger(__name__)


def compare_evaluations(*, images: int, tasks: Sequence[str], repeat: int, seed: int = 0) -> Iterator[Comparison]:
    """Seconds from results in memory to the twelve numbers, for each task; the ground truth is read before.

    The greatest difference of the numbers from pycocotools' is logged.
    """
    truth_content, results = synthetic_dataset(images=images, masks="segm" in tasks, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(truth_content), encoding="utf-8")
        for task in tasks:
            yield _compare(path, truth_content, results, task, repeat)


def _compare(path: Path, content: Entry, results: list[Entry], task: str, repeat: int) -> Comparison:
    categories = content["categories"]
    truth = GroundTruth(
        path, image_ids=[image["id"] for image in content["images"]], masks=task == "segm",
        category_ids=[c["id"] for c in categories], category_names=[c["name"] for c in categories],
    )  # fmt: skip
    numbers: dict[str, list[float]] = {}

    def ours() -> None:
        metrics = coco_metrics(truth, results, task)
        numbers["se_det"] = [metrics[name] for name in SUMMARY]

    def theirs(name: str, coco: type, evaluation: type) -> Callable[[], None]:
        with _silently():
            given = coco(str(path))
        unused = {"bbox": "segmentation", "segm": "bbox"}[task]  # else their areas would be the boxes'

        def run() -> None:
            with _silently():
                found = given.loadRes([{k: v for k, v in result.items() if k != unused} for result in results])
                protocol = evaluation(given, found, task)
                protocol.evaluate()
                protocol.accumulate()
                protocol.summarize()
            numbers[name] = [100 * float(value) for value in protocol.stats[: len(SUMMARY)]]

        return run

    ways = {"se_det": ours, "pycocotools": theirs("pycocotools", COCO, COCOeval)}
    with contextlib.suppress(ImportError):
        import faster_coco_eval as faster

        ways["faster-coco-eval"] = theirs("faster-coco-eval", faster.COCO, faster.COCOeval_faster)
    seconds = time_alternately(ways, repeat=repeat, warm_up=0)
    for name in ways:
        apart = np.abs(np.subtract(numbers[name], numbers["pycocotools"])).max()
        logger.info("%s: %s: AP %.3f, the 12 numbers within %g of pycocotools'.", task, name, numbers[name][0], apart)
    annotations = len(content["annotations"])
    return Comparison(
        f"{task}, {len(content['images'])} images, {annotations} annotations, {len(results)} detections",
        seconds, baseline="pycocotools", amount=len(content["images"]),
    )  # fmt: skip


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """Without what pycocotools prints and faster-coco-eval logs."""
    library = logging.getLogger("faster_coco_eval")
    level = library.level
    library.setLevel(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    library.setLevel(level)


def synthetic_dataset(*, images: int, masks: bool, seed: int) -> tuple[Entry, list[Entry]]:
    """A COCO file's content and results for it, with val2017's counts: seven annotations and 45 detections in an image,
    at most 100. Of the objects 85 % are found, moved and scaled a little; the other detections are of nothing."""
    rng = np.random.default_rng(seed)
    content: Entry = {
        "images": [{"id": i, "width": 640, "height": 480, "file_name": f"{i}.jpg"} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": [],
    }
    frequency = 1 / np.arange(1, CLASSES + 1) ** 0.8
    frequency /= frequency.sum()
    results: list[Entry] = []
    for image in content["images"]:
        count = min(int(rng.gamma(1.0, 7.8)), 60)
        near = rng.choice(np.arange(1, CLASSES + 1), size=min(max(count, 1), 4), p=frequency)
        outlines = []
        for category in rng.choice(near, count).tolist():
            outline = _outline(rng)
            entry = _entry(image, category, outline, masks)
            entry["area"] = entry["bbox"][2] * entry["bbox"][3] * 0.7
            entry |= {"id": len(content["annotations"]) + 1, "iscrowd": int(rng.random() < 0.012)}
            content["annotations"].append(entry)
            outlines.append((category, outline))
        found = []
        for category, outline in outlines:
            if rng.random() < 0.85:
                centre, size = outline.mean(0), np.ptp(outline, axis=0)
                moved = (outline - centre) * np.exp(rng.normal(0, 0.12, 2)) + centre + rng.normal(0, 0.06, 2) * size
                found.append(_entry(image, category, moved, masks) | {"score": rng.beta(5, 2)})
        for _ in range(min(100, count + int(rng.gamma(2.0, 19))) - len(found)):
            category = int(rng.choice(near)) if rng.random() < 0.5 else int(rng.integers(1, CLASSES + 1))
            found.append(_entry(image, category, _outline(rng), masks) | {"score": rng.beta(1.2, 6)})
        results += [entry for entry in found if min(entry["bbox"][2:]) > 1]
    return content, results


def _outline(rng: np.random.Generator) -> np.ndarray:
    """The vertices (n, 2) of something round, as large as COCO's objects."""
    size = np.exp(rng.normal(4.2, 0.9)) * np.exp(rng.normal(0, 0.3, 2))
    size = np.clip(size, 4, [600, 440])
    turn = np.sort(rng.random(int(rng.integers(8, 28)))) * 2 * np.pi
    radius = 0.35 + 0.15 * rng.random((len(turn), 1))
    return rng.random(2) * ([640, 480] - size) + size * (0.5 + radius * np.stack([np.cos(turn), np.sin(turn)], 1))


def _entry(image: Entry, category: int, outline: np.ndarray, masks: bool) -> Entry:
    outline = np.clip(outline, 0, [image["width"], image["height"]])
    low = outline.min(0)
    entry: Entry = {"image_id": image["id"], "category_id": category, "bbox": [*low, *(outline.max(0) - low)]}
    entry["bbox"] = [float(side) for side in entry["bbox"]]
    if masks:
        (rle,) = mask_tools.frPyObjects([outline.ravel().tolist()], image["height"], image["width"])
        entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
    return entry
