"""Any file where COCO annotations are expected: read, or refused in a sentence; nothing else, and nothing elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_documents import documents
from fuzz_limits import NUMBERS, files_below, try_many

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from broken_sets import Set, sound_content

from se_det.data import CocoDataset, read_coco
from se_det.data.augmentations import resize_and_flip
from se_det.data.check import check_dataset
from se_det.data.check.repair import write_cleaned
from se_det.data.check.result_cache import cache_summary, log_summary
from se_det.data.samples import TestDataset, TrainDataset
from se_det.data.worker_loader import to_tensors
from se_det.detection.masks import crop_masks
from se_det.errors import SeDetError
from se_det.evaluation.coco_eval import CocoEvaluator
from se_det.evaluation.report import write_report
from se_det.plots import plot_histograms

AUGMENTATION = {"short_sides": (32, 40), "max_size": 64}


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch) -> Path:
    """A folder with `data`, a sound set, `out` for what is written, and a file beside them that nobody may touch."""
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "out" / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "outside.txt").write_text("mine")
    Set(tmp_path / "data").save()
    return tmp_path


def in_sandbox(sandbox: Path, data: bytes, use: Any) -> None:
    """Let `use(json, images, out)` work with `data` in place of the annotations, and look what it wrote where."""
    path, out = sandbox / "data" / "set.json", sandbox / "out"
    shutil.rmtree(out)
    out.mkdir()
    path.write_bytes(data)
    before = files_below(sandbox)
    use(path, sandbox / "data" / "images", out)
    assert {p: v for p, v in files_below(sandbox).items() if not p.startswith(f"{out}/")} == before


def read(path: Path, images: Path, *, lenient: bool) -> CocoDataset | None:
    try:
        return read_coco(path, images, drop_empty_boxes=lenient)
    except SeDetError as error:
        told(error)
        return None


def told(error: SeDetError) -> None:
    """A refusal is one line that can be printed."""
    text = str(error)
    assert text and text.encode() and len(text) < 2000, text


def use_for_training(dataset: CocoDataset, *, cleaned: bool = False) -> None:
    kept = dataset.drop_empty()
    assert len(kept) <= len(dataset) == len(dataset.file_names)
    samples = TrainDataset(
        [dataset], augmentations=resize_and_flip(**AUGMENTATION), seed=0, format="BGR", masks=True
    )  # fmt: skip
    tests = TestDataset(dataset, short_side=32, max_size=64, format="BGR", method="pil")
    for index in range(len(dataset)):
        try:
            sample = samples[index, index]
            tests[index]
        except SeDetError as error:
            assert not cleaned, error
            told(error)
            continue
        instances = to_tensors(sample["instances"])
        boxes = instances["gt_boxes"]
        assert torch.isfinite(boxes).all()
        assert crop_masks(instances["gt_masks"], torch.arange(len(boxes)), boxes, 28).shape == (len(boxes), 28, 28)


def use_for_evaluation(dataset: CocoDataset, out: Path, *, report: bool) -> None:
    for tasks in (("bbox",), ("bbox", "segm")):
        try:
            evaluator = CocoEvaluator(dataset, tasks, out)
        except SeDetError as error:
            told(error)
            continue
        for index in range(len(dataset)):
            info = dataset.image(index)
            found = dataset.annotations(index)
            boxes = torch.as_tensor(found.boxes)[:2]
            mask = torch.zeros(len(boxes), min(info.height, 99), min(info.width, 99), dtype=torch.bool)
            mask[:, :9, :9] = True
            instances = {"pred_boxes": boxes, "scores": torch.full((len(boxes),), 0.9),
                         "pred_classes": torch.as_tensor(found.classes)[:2], "pred_masks": mask}  # fmt: skip
            evaluator.process([{"image_id": info.id}], [{"instances": instances}])
        metrics = evaluator.evaluate()
        assert set(metrics) == set(tasks)
        json.loads((out / "inference" / "metrics.json").read_bytes())
        if report:
            try:
                write_report(out, {"fuzz": evaluator.outcome}, config="a: <b>")
            except SeDetError as error:
                told(error)
            else:
                assert "<script>alert(1)" not in (out / "report.html").read_text()


@cache
def plot(sides: tuple[float, ...], classes: tuple[tuple[str, int], ...]) -> None:
    plot_histograms(np.array(sides), classes, title="")


def check_and_clean(path: Path, images: Path, out: Path) -> None:
    report = check_dataset(path, images)
    report.text().encode(errors="strict")
    json.dumps(report.as_dict())
    plot(tuple(report.box_sides()), tuple(report.classes))
    try:
        log_summary(cache_summary(report), path, images)
    except SeDetError as error:
        told(error)
    try:
        write_cleaned(report, out / "fixed")
    except SeDetError as error:
        told(error)
        return
    content = json.loads((out / "fixed" / "annotations.json").read_bytes())
    json.loads((out / "fixed" / "changes.json").read_bytes())
    if content["images"]:  # what is left after cleaning is a data set
        use_for_training(read_coco(out / "fixed" / "annotations.json", out / "fixed" / "images"), cleaned=True)


@pytest.mark.parametrize("number", NUMBERS)
def test_training_reads_or_refuses(sandbox: Path, number: int) -> None:
    def use(path: Path, images: Path, out: Path) -> None:
        for lenient in (False, True):
            dataset = read(path, images, lenient=lenient)
            if dataset is not None:
                use_for_training(dataset)

    try_many(number, documents(sound_content()), lambda data: in_sandbox(sandbox, data, use))


@pytest.mark.parametrize("number", NUMBERS)
def test_the_check_finds_or_passes(sandbox: Path, number: int) -> None:
    try_many(number, documents(sound_content()), lambda data: in_sandbox(sandbox, data, check_and_clean))


@pytest.mark.parametrize("number", NUMBERS)
def test_evaluation_reads_or_refuses(sandbox: Path, number: int) -> None:
    counter = iter(range(10**9))

    def use(path: Path, images: Path, out: Path) -> None:
        dataset = read(path, images, lenient=False)
        if dataset is not None:
            use_for_evaluation(dataset, out, report=next(counter) % 8 == 0)

    try_many(number, documents(sound_content()), lambda data: in_sandbox(sandbox, data, use))
