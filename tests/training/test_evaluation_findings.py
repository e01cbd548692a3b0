"""What evaluations of a run find beside AP: losses on the validation data, and score thresholds of best F1."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_detector import config, draw

from se_det import comm
from se_det.data.coco import read_coco
from se_det.data.loader import build_test_loader
from se_det.detection import build_detector
from se_det.evaluation.report.history import training_charts
from se_det.evaluation.validation_loss import ValidationLoss, image_seed, in_loss_mode
from se_det.inference import Predictor
from se_det.training.checkpoint import load_checkpoint
from se_det.training.launch import free_port, spawn
from se_det.training.run import Evaluation, run_evaluation, run_training

LOSSES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("data")
    train, val = draw(folder / "train", 6), draw(folder / "val", 5)
    return ["DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1],
            "DATASETS.VAL_JSON", val[0], "DATASETS.VAL_IMAGES", val[1]]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: list[Any]) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    metrics = run_training(
        config(folder, *data, "TEST.EVAL_LOSS", True, "TEST.EVAL_PERIOD", 6, "SOLVER.MAX_ITER", 12,
               "SOLVER.BASE_LR", 0.1, "SOLVER.CHECKPOINT_PERIOD", 6)
    )  # fmt: skip
    assert metrics["validation"].keys() == {"total_loss", *LOSSES}
    return folder


def val(cfg: Any):
    return read_coco(cfg.DATASETS.VAL_JSON, cfg.DATASETS.VAL_IMAGES)


def model_of(cfg: Any) -> torch.nn.Module:
    torch.manual_seed(3)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    return build_detector(cfg).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", ["GN", "FrozenBN", "BN"])
def test_losses_are_those_of_training(tmp_path: Path, data: list[Any], norm: str) -> None:
    """Of a model in training mode, on the same image with the same sampling; BN's statistics are those it has."""
    cfg = config(tmp_path, *data, "MODEL.RESNETS.NORM", norm, "INPUT.MIN_SIZE_TEST", 96)
    model, part = model_of(cfg), ValidationLoss(cfg, val(cfg))
    samples = [one for (one,) in part.loader()]
    plain = [one for batch in build_test_loader(cfg, val(cfg)) for one in batch]
    assert len(samples) == len(plain) == 5
    expected: dict[str, list[float]] = {}
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    for index, (sample, test) in enumerate(zip(samples, plain)):
        assert torch.equal(sample["image"], test["image"]) and len(sample["instances"]["gt_boxes"]) == 1
        torch.manual_seed(image_seed(index))
        for name, value in model([sample]).items():
            expected.setdefault(name, []).append(value.item())
    found = part(model)
    assert found.keys() == expected.keys() == set(LOSSES)
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.mean(values), rel=1e-6) and found[name] > 0, name
    assert found == part(model)  # the sampling is the same every time


def test_an_evaluation_leaves_the_model_and_the_random_numbers_as_they_were(tmp_path: Path, data: list[Any]) -> None:
    cfg = config(tmp_path, *data, "MODEL.RESNETS.NORM", "BN", "TEST.EVAL_LOSS", True)
    model = model_of(cfg).train()
    model.backbone.bottom_up.stem.eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(11)
    state = torch.get_rng_state()
    metrics = Evaluation(cfg, {"val": val(cfg)})(model)
    assert metrics["validation"]["total_loss"] == pytest.approx(sum(metrics["validation"][name] for name in LOSSES))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes and torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_images_without_truth_count_where_training_has_them(tmp_path: Path, data: list[Any]) -> None:
    content = json.loads(Path(data[5]).read_text())
    content["annotations"] = content["annotations"][1:]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content))
    keys = [*data[:4], "DATASETS.VAL_JSON", str(path), "DATASETS.VAL_IMAGES", data[7]]
    lengths = []
    for filtered in (True, False):
        cfg = config(tmp_path, *keys, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", filtered)
        part = ValidationLoss(cfg, val(cfg))
        lengths.append(len(part.loader()))
        assert all(np.isfinite(list(part(model_of(cfg)).values())))
    assert lengths == [4, 5]
    content["annotations"] = []
    path.write_text(json.dumps(content))
    cfg = config(tmp_path, *keys)
    assert ValidationLoss(cfg, val(cfg))(model_of(cfg)) == {}


def losses_of_a_process(folder: str, data: list[Any]) -> None:
    cfg = config(Path(folder), *data)
    losses = ValidationLoss(cfg, val(cfg))(model_of(cfg))
    (Path(folder) / f"rank{comm.get_rank()}.json").write_text(json.dumps(losses))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path, data: list[Any]) -> None:
    cfg = config(tmp_path, *data)
    alone = ValidationLoss(cfg, val(cfg))(model_of(cfg))
    spawn(losses_of_a_process, (str(tmp_path), data), processes=2, url=f"tcp://127.0.0.1:{free_port()}")
    assert json.loads((tmp_path / "rank0.json").read_text()) == alone
    assert json.loads((tmp_path / "rank1.json").read_text()) == {}


def test_a_run_writes_and_draws_them(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    evaluated = [line for line in lines if "bbox/AP" in line]
    assert [line["iteration"] for line in evaluated] == [6, 12]
    for line in evaluated:
        assert line["validation/total_loss"] == pytest.approx(sum(line[f"validation/{name}"] for name in LOSSES))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained)).Reload()
    drawn = [event.value for event in events.Scalars("validation/total_loss")]
    assert drawn == pytest.approx([line["validation/total_loss"] for line in evaluated], rel=1e-6)
    report = (trained / "report.html").read_text()
    assert report.count("</i>training</span>") == report.count("</i>validation</span>") == len(LOSSES) + 1
    assert "Score thresholds" in report


def test_losses_stand_beside_each_other() -> None:
    history = {"loss_cls": [(1.0, 2.0), (2.0, 1.0)], "a/validation/loss_cls": [(2.0, 3.0)],
               "b/validation/loss_cls": [(2.0, 4.0)], "validation/loss_box_reg": [(1.0, 1.0)]}  # fmt: skip
    losses, cls = training_charts(history)
    assert [name in cls for name in (">training<", ">a/validation<", ">b/validation<")] == [True] * 3
    assert "validation" not in losses


def test_checkpoints_keep_the_thresholds_of_their_own_weights(
    trained: Path, data: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    final = load_checkpoint(trained / "model_final.pth")
    assert final["thresholds"].keys() == final["threshold_metrics"].keys() == {"square", "bar"}
    found = {name: score for name, score in final["thresholds"].items() if score is not None}
    assert found, "the run must find something for this test"
    assert "thresholds" in load_checkpoint(trained / "model_best.pth")
    assert "thresholds" not in load_checkpoint(trained / "model_0000006.pth")  # written before its evaluation
    with caplog.at_level(logging.INFO):
        metrics = run_evaluation(
            config(tmp_path, *data, "MODEL.WEIGHTS", str(trained / "model_final.pth"), "TEST.EVAL_LOSS", True)
        )
    last = json.loads((trained / "metrics.json").read_text().splitlines()[-1])
    assert metrics["validation"] == {name: last[f"validation/{name}"] for name in metrics["validation"]}
    for name, score in found.items():
        worth = final["threshold_metrics"][name]
        assert any(name in m and f"{score:.3f} (F1 {worth['f1']:.3f}" in m for m in caplog.messages)
    predictor = Predictor(trained / "model_final.pth")
    assert dict(zip(predictor.class_names, predictor.thresholds)) == final["thresholds"]
    assert predictor.cfg.MODEL.DEVICE in ("cpu", "cuda")
    shown = sum(len(predictor(image).above_thresholds()) for image in sorted(Path(data[7]).glob("*.png")))
    assert shown > 0


def test_the_mode_changes_no_statistics() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5))
    model.eval()
    model.training = True
    assert [m.training for m in in_loss_mode(model).modules()] == [True, True, False, False]
