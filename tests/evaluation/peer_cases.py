"""Made-up data on which evaluators are compared with Detectron2, panopticapi, lvis-api and cityscapesscripts.

`python tests/evaluation/peer_cases.py` writes tests/evaluation/golden/peers.json; it needs all four.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from se_det.data.coco import read_coco
from se_det.data.label_folder import read_labelled_images
from se_det.data.named.cityscapes import LABELS, THINGS, open_instances, open_sem_seg
from se_det.data.named.voc import CLASSES, open_voc
from se_det.data.panoptic import PanopticFiles, PanopticLabels, read_categories
from se_det.data.pixel_labels import LabelFolder, panoptic_pixels
from se_det.evaluation.lvis_eval import LvisEvaluator
from se_det.evaluation.panoptic_eval import PanopticEvaluator
from se_det.evaluation.sem_seg_eval import SemSegEvaluator
from se_det.evaluation.voc_eval import VocEvaluator

GOLDEN = Path(__file__).resolve().parent / "golden" / "peers.json"
NAMES = ("things", "sky", "grass", "sand", "never")
IGNORE = 255


def blocks(random: np.random.RandomState, height: int, width: int, values: list[int], side: int = 9) -> np.ndarray:
    """Labels (height, width) in blocks."""
    coarse = random.choice(values, (-(-height // side), -(-width // side)))
    return np.kron(coarse, np.ones((side, side), int))[:height, :width].astype(np.uint8)


def noisy(random: np.random.RandomState, truth: np.ndarray, values: list[int], share: float = 0.3) -> np.ndarray:
    """What a model may have found: the truth moved a little, and other values here and there."""
    found = np.roll(truth, 2, axis=(0, 1))
    found = np.where(found == IGNORE, values[0], found)
    return np.where(blocks(random, *truth.shape, [0, 1], 5) * random.rand(*truth.shape) > 1 - share,
                    blocks(random, *truth.shape, values, 5), found).astype(np.uint8)  # fmt: skip


def one_hot(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Logits (K, H, W) whose largest is the label."""
    return torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), classes).permute(2, 0, 1).float()


# --- classes of pixels -------------------------------------------------------------------------------------------


def make_sem_seg(folder: Path) -> tuple[Path, list[np.ndarray]]:
    """Three images with labels, and predictions; class 4 is in neither, 3 is found and never annotated."""
    random = np.random.RandomState(3)
    found = []
    for number, size in enumerate(((40, 61), (75, 50), (64, 64))):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        truth = blocks(random, *size, [0, 1, 2, IGNORE])
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / "images" / f"{number}.jpg")
        Image.fromarray(truth).save(folder / "labels" / f"{number}.png")
        found.append(noisy(random, truth, [0, 1, 2, 3]))
    return folder, found


def our_sem_seg(folder: Path) -> dict[str, float]:
    place, found = make_sem_seg(folder)
    dataset = read_labelled_images(place / "images", LabelFolder(place / "labels", NAMES))
    evaluator = SemSegEvaluator(dataset, folder / "run")
    for number, labels in enumerate(found):
        evaluator.process([{"image_id": str(number), "file_name": f"{number}.jpg"}], [{"sem_seg": one_hot(labels, 5)}])
    return evaluator.evaluate()["sem_seg"]


def their_sem_seg(folder: Path) -> dict[str, float]:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator as Theirs

    place, found = make_sem_seg(folder)
    records = [
        {"file_name": f"{n}.jpg", "sem_seg_file_name": str(place / "labels" / f"{n}.png")} for n in range(len(found))
    ]
    DatasetCatalog.register("peer_sem_seg", lambda: records)
    MetadataCatalog.get("peer_sem_seg").set(stuff_classes=list(NAMES), ignore_label=IGNORE)
    evaluator = Theirs("peer_sem_seg", distributed=False)
    evaluator.reset()
    for number, labels in enumerate(found):
        evaluator.process([{"file_name": f"{number}.jpg"}], [{"sem_seg": one_hot(labels, 5)}])
    return dict(evaluator.evaluate()["sem_seg"])


# --- segments ----------------------------------------------------------------------------------------------------

CATEGORIES = [
    {"id": 3, "name": "cat", "isthing": 1}, {"id": 7, "name": "dog", "isthing": 1},
    {"id": 9, "name": "owl", "isthing": 1},
    {"id": 20, "name": "sky", "isthing": 0}, {"id": 31, "name": "grass", "isthing": 0},
]  # fmt: skip
THING_IDS, STUFF_IDS = (3, 7, 9), (0, 20, 31)


def make_panoptic(folder: Path) -> list[tuple[np.ndarray, list[dict[str, Any]]]]:
    """A panoptic JSON with its PNGs and images, with crowds and void; returns the models' segments."""
    random = np.random.RandomState(12)
    for name in ("images", "panoptic"):
        (folder / name).mkdir(exist_ok=True)
    images, annotations, found = [], [], []
    for number in range(6):
        size = (60 + number, 80)
        cells = blocks(random, *size, list(range(12)), 15).astype(np.int64)
        kinds = random.choice([0, 3, 7, 20, 31], 12)  # 0 is void
        crowd = random.rand(12) < 0.2
        numbers = np.where(kinds[cells] > 0, cells * 1000 + 17, 0)
        infos = [
            {"id": int(c) * 1000 + 17, "category_id": int(kinds[c]), "area": int((cells == c).sum()),
             "iscrowd": int(crowd[c] and kinds[c] < 10), "bbox": [0, 0, 1, 1]}
            for c in np.unique(cells) if kinds[c] > 0
        ]  # fmt: skip
        Image.fromarray(panoptic_pixels(numbers)).save(folder / "panoptic" / f"{number:04d}.png")
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / "images" / f"{number:04d}.jpg")
        images.append({"id": number, "file_name": f"{number:04d}.jpg", "height": size[0], "width": size[1]})
        annotations.append({"image_id": number, "file_name": f"{number:04d}.png", "segments_info": infos})
        # Found: the segments moved a little, some of another category, some left out.
        moved = np.roll(cells, number, axis=1)
        guess = np.where(random.rand(12) < 0.2, random.choice([3, 7, 9, 20, 31], 12), kinds)
        guess[random.rand(12) < 0.1] = 0
        segments, told = np.zeros(size, np.int32), []
        for cell in np.unique(moved):
            category = int(guess[cell])
            if category:
                segments[moved == cell] = len(told) + 1
                thing = category in THING_IDS
                label = (THING_IDS if thing else STUFF_IDS).index(category)
                told.append({"id": len(told) + 1, "isthing": thing, "category_id": label})
        found.append((segments, told))
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "panoptic.json").write_text(json.dumps(document))
    return found


def our_panoptic(folder: Path) -> dict[str, float]:
    found = make_panoptic(folder)
    files = PanopticFiles(folder / "panoptic.json", folder / "panoptic")
    document = json.loads((folder / "panoptic.json").read_text())
    things = [{"id": c["id"], "name": c["name"]} for c in CATEGORIES if c["isthing"]]
    (folder / "instances.json").write_text(
        json.dumps({"images": document["images"], "annotations": [], "categories": things})
    )
    dataset = read_coco(folder / "instances.json", folder / "images")
    dataset = dataset.with_labels(PanopticLabels(files, read_categories(files.json_path)), files)
    evaluator = PanopticEvaluator(dataset, folder / "run")
    for number, (segments, infos) in enumerate(found):
        sample = {"image_id": number, "file_name": f"{number:04d}.jpg"}
        evaluator.process([sample], [{"panoptic_seg": (torch.from_numpy(segments), infos)}])
    return evaluator.evaluate()["panoptic_seg"]


def their_panoptic(folder: Path) -> dict[str, float]:
    from panopticapi.evaluation import pq_compute

    our_panoptic(folder)  # writes the PNGs and the JSON of what was found
    run = folder / "run" / "inference"
    found = pq_compute(
        str(folder / "panoptic.json"), str(run / "panoptic_predictions.json"),
        gt_folder=str(folder / "panoptic"), pred_folder=str(run / "panoptic"),
    )  # fmt: skip
    values = {}
    for suffix, group in (("", "All"), ("_th", "Things"), ("_st", "Stuff")):
        values |= {f"{name.upper()}{suffix}": 100 * found[group][name] for name in ("pq", "sq", "rq")}
    return values


# --- LVIS --------------------------------------------------------------------------------------------------------


def make_lvis(folder: Path) -> list[dict[str, Any]]:
    """A LVIS JSON with images, and results: a category per group, one in none of the images."""
    random = np.random.RandomState(21)
    (folder / "images").mkdir(exist_ok=True)
    groups = ("r", "c", "f", "f", "c", "r")
    categories = [{"id": n, "name": f"c{n}", "frequency": g} for n, g in enumerate(groups, 1)]
    images, annotations, results = [], [], []
    for number in range(1, 9):
        Image.fromarray(np.zeros((200, 300, 3), np.uint8)).save(folder / "images" / f"{number}.jpg")
        positive = random.choice(range(1, 6), 3, replace=False).tolist()
        others = [n for n in range(1, 7) if n not in positive]
        images.append({
            "id": number, "file_name": f"{number}.jpg", "height": 200, "width": 300, "neg_category_ids": others[:2],
            "not_exhaustive_category_ids": [positive[0], *others[:1]], "coco_url": f"http://x/images/{number}.jpg",
        })  # fmt: skip
        for _ in range(14):
            category = int(random.choice(positive))
            box = _box(random)
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box,
                "area": box[2] * box[3], "segmentation": [_corners(box)],
            })  # fmt: skip
            for _ in range(random.randint(0, 3)):
                shifted = [v + s for v, s in zip(box, random.uniform(-6, 6, 4))]
                shifted = [max(shifted[0], 0), max(shifted[1], 0), max(shifted[2], 2), max(shifted[3], 2)]
                results.append(_result(random, number, category if random.rand() < 0.8 else 6, shifted))
        for _ in range(12):
            results.append(_result(random, number, int(random.randint(1, 7)), _box(random)))
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "lvis.json").write_text(json.dumps(document))
    return results


def _box(random: np.random.RandomState) -> list[float]:
    side = np.exp(random.uniform(np.log(8), np.log(130), 2))
    corner = random.uniform(0, [300 - side[0], 200 - side[1]])
    return [float(round(v, 2)) for v in (*corner, *side)]


def _corners(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def _result(random: np.random.RandomState, image: int, category: int, box: list[float]) -> dict[str, Any]:
    from pycocotools import mask as tools

    rle = tools.merge(tools.frPyObjects([_corners(box)], 200, 300))
    return {
        "image_id": image, "category_id": category, "bbox": box, "score": float(random.rand()),
        "segmentation": {"size": [200, 300], "counts": rle["counts"].decode()},
    }  # fmt: skip


LVIS_LIMIT = 20  # below what an image has, so that it cuts


def our_lvis(folder: Path) -> dict[str, float]:
    results = make_lvis(folder)
    dataset = read_coco(folder / "lvis.json", folder / "images")
    outcome = LvisEvaluator(dataset, ("bbox", "segm"), max_dets_per_image=LVIS_LIMIT).score(results)
    names = LvisEvaluator(dataset).summary
    return {f"{task}/{name}": values[name] for task, values in outcome.metrics.items() for name in names}


def their_lvis(folder: Path) -> dict[str, float]:
    from lvis import LVIS, LVISEval, LVISResults

    np.float = float  # it was written for an older NumPy
    results = make_lvis(folder)
    values = {}
    for task in ("bbox", "segm"):
        truth = LVIS(str(folder / "lvis.json"))
        given = [{k: v for k, v in r.items() if task == "bbox" or k != "bbox"} for r in results]
        evaluation = LVISEval(truth, LVISResults(truth, given, max_dets=LVIS_LIMIT), task)
        evaluation.run()
        values |= {f"{task}/{name}": 100 * v for name, v in evaluation.get_results().items() if "@" not in name}
    return values


# --- VOC ---------------------------------------------------------------------------------------------------------


def make_voc(folder: Path) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """A VOC2007 with a split `test`, and detections of its images; all classes have objects, some difficult."""
    random = np.random.RandomState(4)
    place = folder / "VOC2007"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (place / name).mkdir(parents=True, exist_ok=True)
    names, found = [], []
    for number in range(24):
        name = f"{number:06d}"
        names.append(name)
        Image.fromarray(np.zeros((200, 300, 3), np.uint8)).save(place / "JPEGImages" / f"{name}.jpg")
        objects, boxes, labels = [], [], []
        for _ in range(9):
            label = int(random.randint(len(CLASSES)))
            x, y, w, h = (int(v) for v in _box(random))
            corners = x + 1, y + 1, x + max(w, 4), y + max(h, 4)
            inner = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), corners))
            objects.append(
                f"<object><name>{CLASSES[label]}</name><pose>Left</pose><truncated>0</truncated>"
                f"<difficult>{int(random.rand() < 0.2)}</difficult><bndbox>{inner}</bndbox></object>"
            )
            for _ in range(random.randint(0, 3)):
                boxes.append([c + s for c, s in zip(corners, random.uniform(-4, 4, 4))])
                labels.append(label if random.rand() < 0.9 else int(random.randint(len(CLASSES))))
        (place / "Annotations" / f"{name}.xml").write_text(
            "<annotation><size><width>300</width><height>200</height><depth>3</depth></size>"
            f"{''.join(objects)}</annotation>"
        )
        found.append((name, boxes, labels))
    (place / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names) + "\n")
    # Different in their third decimals within a class, where ties would be up to the sorting.
    total = sum(len(boxes) for _, boxes, _ in found)
    scores = iter(random.permutation(np.linspace(0.02, 0.99, max(total, 2)).round(3)).tolist())
    return [
        (name, {"pred_boxes": torch.tensor(boxes).reshape(-1, 4), "pred_classes": torch.tensor(labels).long(),
                "scores": torch.tensor([next(scores) for _ in boxes])})
        for name, boxes, labels in found
    ]  # fmt: skip


def our_voc(folder: Path) -> dict[str, float]:
    found, values = make_voc(folder), {}
    dataset = open_voc(folder, folder="VOC2007", split="test", year=2007)
    for year in (2007, 2012):
        evaluator = VocEvaluator(dataset, eleven_points=None if year == 2007 else False)
        for name, instances in found:
            evaluator.process([{"image_id": name}], [{"instances": instances}])
        values |= {f"{year}/{name}": v for name, v in evaluator.evaluate()["bbox"].items() if "-" not in name}
    return values


def their_voc(folder: Path) -> dict[str, float]:
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    found, values = make_voc(folder), {}
    for year in (2007, 2012):
        name = f"peer_voc_{year}"
        MetadataCatalog.get(name).set(
            dirname=str(folder / "VOC2007"), split="test", year=year, thing_classes=list(CLASSES)
        )
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        for image, instances in found:
            given = {**instances, "pred_boxes": Boxes(instances["pred_boxes"])}
            evaluator.process([{"image_id": image}], [{"instances": Instances((200, 300), **given)}])
        values |= {f"{year}/{key}": float(v) for key, v in evaluator.evaluate()["bbox"].items()}
    return values


# --- Cityscapes --------------------------------------------------------------------------------------------------


def make_cityscapes(folder: Path) -> list[tuple[str, np.ndarray, dict[str, torch.Tensor]]]:
    """Two images of a city with their truth, and what was found."""
    random = np.random.RandomState(9)
    ids = [label.id for label in LABELS]
    found = []
    for number in range(2):
        name = f"aachen_{number:06d}_000019"
        images, truth = folder / "cityscapes/leftImg8bit/val/aachen", folder / "cityscapes/gtFine/val/aachen"
        images.mkdir(parents=True, exist_ok=True)
        truth.mkdir(parents=True, exist_ok=True)
        size = (120, 200)
        labels = blocks(random, *size, [*ids, 0, 4], 30)
        numbers = labels.astype(np.int32)
        masks, classes, scores = [], [], []
        for at, thing in enumerate(THINGS):
            region = labels == thing.id
            for part, half in enumerate((np.arange(200) < 100, np.arange(200) >= 100)):
                numbers[region & half] = thing.id * 1000 + part
                if (region & half).any():
                    masks.append(np.roll(region & half, random.randint(0, 9), axis=1))
                    classes.append(at if random.rand() < 0.8 else random.randint(len(THINGS)))
                    scores.append(random.rand())
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(images / f"{name}_leftImg8bit.png")
        Image.fromarray(labels).save(truth / f"{name}_gtFine_labelIds.png")
        Image.fromarray(numbers.astype(np.uint16)).save(truth / f"{name}_gtFine_instanceIds.png")
        known = np.zeros(256, np.uint8)
        known[ids] = np.arange(len(ids))
        known = known[labels]
        boxes = torch.zeros(len(masks), 4)
        instances = {
            "pred_boxes": boxes, "scores": torch.tensor(scores), "pred_classes": torch.tensor(classes),
            "pred_masks": torch.from_numpy(np.array(masks)),
        }  # fmt: skip
        found.append((f"aachen/{name}_leftImg8bit", noisy(random, known, list(range(19))), instances))
    return found


def our_cityscapes(folder: Path) -> dict[str, float]:
    from se_det.evaluation.cityscapes_eval import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator

    found = make_cityscapes(folder)
    where = {"images": "cityscapes/leftImg8bit/val", "truth": "cityscapes/gtFine/val"}
    pixels = CityscapesSemSegEvaluator(open_sem_seg(folder, **where))
    instances = CityscapesInstanceEvaluator(open_instances(folder, **where))
    for name, labels, detections in found:
        pixels.process([{"image_id": name}], [{"sem_seg": one_hot(labels, len(LABELS))}])
        image_id = Path(name).name.removesuffix("_leftImg8bit")
        instances.process([{"image_id": image_id}], [{"instances": detections}])
    metrics = pixels.evaluate() | instances.evaluate()
    return {f"{task}/{name}": value for task, values in metrics.items() for name, value in values.items()}


CASES = {
    "sem_seg": (our_sem_seg, their_sem_seg), "panoptic": (our_panoptic, their_panoptic), "lvis": (our_lvis, their_lvis),
    "voc": (our_voc, their_voc),
}  # fmt: skip


def check(ours: dict[str, float], theirs: dict[str, float | None]) -> None:
    """Fail where a number that they have is another."""
    assert theirs and any(v for v in theirs.values())
    for name, value in theirs.items():
        if value is None or math.isnan(value):
            assert math.isnan(ours[name]), name
        else:
            assert abs(ours[name] - value) < 1e-9, (name, ours[name], value)


def main() -> None:
    """Write the golden file."""
    found = {}
    for case, (_, theirs) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found[case] = {k: None if math.isnan(v) else float(v) for k, v in theirs(Path(folder)).items()}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
