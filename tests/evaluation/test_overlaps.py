"""Overlaps of a whole data set against pycocotools' `iou` called for every image, or class in it, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from se_det.evaluation import overlaps
from se_det.evaluation.ground_truth import GroundTruth
from se_det.evaluation.overlaps import Entries, find_overlaps, image_overlaps, mask_areas, shapes_of

HEIGHT, WIDTH = 60, 90
KINDS = ("box", "polygon", "rle", "compressed", "empty")


def random_set(folder: Path, seed: int, *, most: int = 25) -> tuple[GroundTruth, list[dict[str, Any]]]:
    """Ground truth read from a file, and results: boxes of any size, zero and outside the image included, that overlap
    equally now and then; segmentations of every form, crowds, equal scores, images without the one or the other."""
    rng = np.random.default_rng(seed)
    ids, categories = rng.permutation(9).tolist(), [7, 3]

    def box() -> list[float]:
        values = rng.choice([rng.integers(0, 8, 4) * 10.0, rng.uniform(-5, 70, 4), rng.uniform(0, 3, 4)])
        return [values[0], values[1], abs(values[2]), abs(values[3])]

    def rle(kind: str, xywh: list[float]) -> Any:
        x, y, w, h = xywh
        ring = [x, y, x + w, y, x + w, y + h, x + w / 3, y + h / 2, x, y + h]
        if kind == "polygon":
            return [ring, (rng.uniform(0, 60, 6)).tolist()][: rng.integers(1, 3)]
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        if kind == "rle":
            mask = (rng.random((HEIGHT, WIDTH)) < 0.3).astype(np.uint8)
        elif kind == "compressed":
            mask[max(0, int(y)) : int(y + h), max(0, int(x)) : int(x + w)] = 1
        encoded = mask_tools.encode(np.asfortranarray(mask))
        encoded["counts"] = encoded["counts"].decode()
        if kind != "rle":
            return encoded
        changes = np.flatnonzero(np.diff(np.concatenate(([0], mask.flatten(order="F"), [2]))))
        return {"size": [HEIGHT, WIDTH], "counts": np.diff(changes, prepend=0).tolist()}

    annotations, results = [], []
    for image_id in ids[:-1]:
        for _ in range(rng.integers(0, most) if rng.random() < 0.8 else 0):
            xywh = box()
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(rng.choice(categories))}
            annotation |= {"bbox": xywh, "iscrowd": int(rng.random() < 0.2), "area": float(rng.uniform(0, 9000))}
            kind = rng.choice(KINDS)
            annotations.append(annotation if kind == "box" else annotation | {"segmentation": rle(kind, xywh)})
        for _ in range(rng.integers(0, 2 * most) if rng.random() < 0.8 else 0):
            seen = [a["bbox"] for a in annotations if a["image_id"] == image_id]
            xywh = seen[rng.integers(len(seen))] if seen and rng.random() < 0.4 else box()
            encoded = rle(rng.choice(["compressed", "compressed", "empty"]), xywh)
            result = {"image_id": image_id, "category_id": int(rng.choice(categories)), "bbox": xywh}
            results.append(result | {"segmentation": encoded, "score": float(rng.integers(0, 6)) / 5})
    content = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.png"} for i in ids],
        "categories": [{"id": c, "name": str(c)} for c in sorted(categories)],
        "annotations": annotations,
    }
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    truth = GroundTruth(path, image_ids=ids, category_ids=sorted(categories), category_names=["c", "g"], masks=True)
    return truth, [results[i] for i in rng.permutation(len(results))]


def theirs(found: list[dict], objects: list[dict], crowd: np.ndarray, task: str) -> np.ndarray:
    if not found or not objects:
        return np.zeros((len(found), len(objects)))
    key = {"bbox": "bbox", "segm": "segmentation"}[task]
    return mask_tools.iou([f[key] for f in found], [o[key] for o in objects], crowd.astype(int).tolist())


@pytest.fixture(params=[2**20, 40], ids=["at once", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlaps, "PAIRS_AT_ONCE", request.param)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_every_image_is_pycocotools(tmp_path: Path, task: str, seed: int) -> None:
    truth, results = random_set(tmp_path, seed, most=160 if seed == 5 else 25)
    images = image_overlaps(truth, results, task)
    assert [image.image_id for image in images] == list(truth.image_numbers)
    positive = left_out = 0
    for image in images:
        objects = truth.annotations_of(image.image_id)
        expected: list[dict] = []
        for result in sorted((r for r in results if r["image_id"] == image.image_id), key=lambda r: -r["score"]):
            if sum(r["category_id"] == result["category_id"] for r in expected) < 100:
                expected.append(result)
            else:
                left_out += 1
        ignored = [a["iscrowd"] or (task == "segm" and a["mask_unknown"]) for a in objects]
        np.testing.assert_array_equal(image.crowd, np.array(ignored, bool))
        np.testing.assert_array_equal(image.scores, [r["score"] for r in expected])
        np.testing.assert_array_equal(image.classes, [truth.category_numbers[r["category_id"]] - 1 for r in expected])
        np.testing.assert_array_equal(image.truth_classes, [a["category_id"] - 1 for a in objects])
        np.testing.assert_array_equal(image.iou, theirs(expected, objects, image.crowd, task))
        positive += (image.iou > 0).sum()
    assert positive > 20 and (left_out > 0) == (seed == 5)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("least", [0.05, 0.5])
@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(2))
def test_every_pair_of_a_cell_is_pycocotools(tmp_path: Path, task: str, seed: int, least: float) -> None:
    truth, results = random_set(tmp_path, seed, most=80)

    def entries(items: list[dict], cells: list[int]) -> tuple[list[dict], Entries]:
        order = np.argsort(cells, kind="stable")
        items = [items[i] for i in order]
        areas = mask_areas([i["segmentation"] for i in items])
        return items, Entries(np.array(cells, np.int64)[order], areas, shapes_of(items, task))

    numbers, classes, count = truth.image_numbers, truth.category_numbers, len(truth.image_numbers)
    found, detections = entries(results, [classes[r["category_id"]] * count + numbers[r["image_id"]] for r in results])
    annotations, objects = entries(
        truth.annotations, [a["category_id"] * count + a["image_id"] for a in truth.annotations]
    )
    crowd = np.array([a["iscrowd"] for a in annotations], bool)
    pairs = find_overlaps(detections, objects, crowd, least)

    expected = []
    for cell in np.unique(detections.cell):
        d, o = np.flatnonzero(detections.cell == cell), np.flatnonzero(objects.cell == cell)
        table = theirs([found[i] for i in d], [annotations[i] for i in o], crowd[o], task)
        expected += [(d[i], o[j], table[i, j]) for i, j in np.argwhere(table >= least)]
    assert len(expected) > 20
    np.testing.assert_array_equal(np.stack([pairs.detection, pairs.object, pairs.overlap], axis=1), expected)
