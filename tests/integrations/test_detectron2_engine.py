"""`--engine detectron2` as users run it, with an installed Detectron2."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")
import cv2

from se_det.cli.main import run_command

pytestmark = [pytest.mark.detectron2, pytest.mark.filterwarnings("ignore:torch.meshgrid")]  # Detectron2's anchors

TINY = [
    "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.RESNETS.NORM", "GN",
    "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "50",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64",
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.WARMUP_ITERS", "0",
    "SOLVER.STEPS", "()", "DATALOADER.NUM_WORKERS", "0", "MODEL.WEIGHTS", "",
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Four images with a box each; the masks are polygons."""
    folder = tmp_path / "images"
    folder.mkdir()
    images, annotations = [], []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 80, 3), dtype=np.uint8)
        x, y = 8 + 6 * i, 10 + 4 * i
        pixels[y : y + 30, x : x + 36] = (20, 200, 60 * i)
        cv2.imwrite(str(folder / f"{i}.png"), pixels)
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 64, "width": 80})
        polygon = [x, y, x + 36, y, x + 36, y + 30, x, y + 30]
        annotations.append(
            {"id": i + 1, "image_id": i + 1, "category_id": 7, "bbox": [x, y, 36, 30], "area": 1080, "iscrowd": 0,
             "segmentation": [polygon]}
        )  # fmt: skip
    path = tmp_path / "data.json"
    categories = [{"id": 7, "name": "box"}, {"id": 9, "name": "other"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return ["--train-json", str(path), "--train-images", str(folder), "--val-json", str(path), "--val-images",
            str(folder)]  # fmt: skip


def train(engine: str, data: list[str], output: Path, *overrides: str, flags: tuple[str, ...] = ()) -> int:
    config = ["--config-file", "configs/mask_rcnn_se_r18_fpn.yaml", "--engine", engine]
    return run_command("train", [*config, *data, *flags, *TINY, "OUTPUT_DIR", str(output), *overrides])


def metrics(output: Path) -> dict:
    return json.loads((output / "inference" / "metrics.json").read_text())


def test_weights_go_both_ways_and_give_the_same_numbers(data: list[str], tmp_path: Path):
    for trained_by, other in (("builtin", "detectron2"), ("detectron2", "builtin")):
        output = tmp_path / trained_by
        assert train(trained_by, data, output) == 0
        weights = str(output / "model_final.pth")
        found = {}
        for engine in (trained_by, other):
            folder = tmp_path / f"{trained_by}_in_{engine}"
            assert train(engine, data, folder, "MODEL.WEIGHTS", weights, flags=("--eval-only",)) == 0
            found[engine] = metrics(folder)
        for task in ("bbox", "segm"):
            for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
                one, two = found["builtin"][task][name], found["detectron2"][task][name]
                assert one == two or one == pytest.approx(two, abs=1e-3), (trained_by, task, name)


def test_a_run_can_be_resumed_by_the_engine_that_wrote_it_alone(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert train("builtin", data, ours) == 0
    assert train("detectron2", data, theirs, "TEST.EVAL_PERIOD", "2") == 0
    assert {p.name for p in theirs.glob("*")} >= {
        "config.yaml", "log.txt", "metrics.json", "model_final.pth", "model_best.pth", "last_checkpoint"
    }  # fmt: skip
    for file in theirs.glob("*.pth"):
        torch.load(file, weights_only=True)
    capsys.readouterr()
    for engine, folder in (("builtin", theirs), ("detectron2", ours)):
        assert train(engine, data, folder, "SOLVER.MAX_ITER", "6", flags=("--resume",)) == 1
        assert "MODEL.WEIGHTS" in capsys.readouterr().err
    assert train("detectron2", data, theirs, "SOLVER.BASE_LR", "0.5", flags=("--resume",)) == 1
    assert "SOLVER.BASE_LR (was " in capsys.readouterr().err
    assert train("detectron2", data, theirs, "SOLVER.MAX_ITER", "6", "TEST.EVAL_PERIOD", "2", flags=("--resume",)) == 0
    assert torch.load(theirs / "model_final.pth", weights_only=True)["iteration"] == 5
    shutil.copy(theirs / "model_final.pth", theirs / "model_0000009.pth")
    (theirs / "model_0000009.pth").write_bytes(b"torn")
    (theirs / "last_checkpoint").write_text("model_0000009.pth")
    assert train("detectron2", data, theirs, "SOLVER.MAX_ITER", "7", "TEST.EVAL_PERIOD", "2", flags=("--resume",)) == 0


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("INPUT.RESIZE", "fast", "INPUT.RESIZE is 'fast'"),
        ("SOLVER.ACCUMULATE", "2", "SOLVER.ACCUMULATE is 2"),
        ("DATALOADER.SKIP_BAD_IMAGES", "1", "DATALOADER.SKIP_BAD_IMAGES is 1"),
        ("SOLVER.EMA.DECAY", "0.9", "SOLVER.EMA.DECAY is 0.9"),
        ("TEST.EARLY_STOP", "3", "TEST.EARLY_STOP"),
        ("MODEL.GATE.PADDING", "exact", "MODEL.GATE.PADDING exact"),
        ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.ENABLED"),
        ("SOLVER.OPTIMIZER", "Adam", "SOLVER.OPTIMIZER 'Adam'"),
        ("MODEL.BACKBONE.NAME", "build_no_backbone", "build_no_backbone"),
        ("DATASETS.TEST", "('coco_2017_vall',)", "coco_2017_val'"),
        ("MODEL.WEIGHTS", "nowhere.pth", "nowhere.pth"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, key: str, value: str, said: str
):
    if key == "DATASETS.TEST":
        data = data[:0]
        key, value = "DATASETS.TRAIN", value
    assert train("detectron2", data, tmp_path / "out", key, value) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_optimisers_learning_rates_and_squeeze_work(data: list[str], tmp_path: Path):
    output = tmp_path / "out"
    keys = ["SOLVER.OPTIMIZER", "AdamW", "SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
            "full_model", "MODEL.GATE.PADDING", "squeeze", "SOLVER.BASE_LR", "0.016", "TEST.IMS_PER_BATCH", "4",
            "TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64,)"]  # fmt: skip
    assert train("detectron2", data, output, *keys) == 0
    rates = [json.loads(line)["lr"] for line in (output / "metrics.json").read_text().splitlines() if '"lr"' in line]
    assert rates[-1] == pytest.approx(0.016 * 2 / 16)  # for the 2 images of a step
    assert set(metrics(output)) == {"bbox", "segm", "bbox_TTA", "segm_TTA"}


def test_run_length_coded_masks_are_trained_on_as_bitmaps(data: list[str], tmp_path: Path):
    path = Path(data[1])
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = {"size": [64, 80], "counts": [64 * 8 + 10, 30, 34, 30, 64 * 80 - 616]}
    path.write_text(json.dumps(content))
    assert train("detectron2", data, tmp_path / "out") == 0
    assert "MASK_FORMAT: bitmask" in (tmp_path / "out" / "config.yaml").read_text()


def test_what_detectron2_alone_has_says_so_in_the_builtin_engine(capsys: pytest.CaptureFixture, tmp_path: Path):
    keys = ["MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "OUTPUT_DIR", str(tmp_path)]
    assert run_command("train", ["--config-file", "configs/faster_rcnn_se_r50_fpn.yaml", *keys]) == 1
    assert "--engine detectron2" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals, code: int,
) -> None:  # fmt: skip
    """After the second step, at which an evaluation is due."""
    from se_det.integrations import detectron2_engine as engine

    plain = engine.Trainer.run_step

    def run_step(trainer: engine.Trainer) -> None:
        plain(trainer)
        if trainer.iter == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(engine.Trainer, "run_step", run_step)
    keys = ["SOLVER.CHECKPOINT_PERIOD", "100", "TEST.EVAL_PERIOD", "2"]
    assert train("detectron2", data, tmp_path / "run", *keys) == code
    told = capsys.readouterr().err
    assert f"error: {number.name} ended the run after 2 of 4 steps. All of it is saved: --resume goes on." in told
    assert "Traceback" not in (tmp_path / "run" / "log.txt").read_text()
    assert [path.name for path in (tmp_path / "run").glob("*.pth")] == ["model_0000001.pth"]
    monkeypatch.setattr(engine.Trainer, "run_step", plain)
    assert train("detectron2", data, tmp_path / "run", *keys, flags=("--resume",)) == 0
    steps = [json.loads(line)["iteration"] for line in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    assert max(steps) >= 3 and (tmp_path / "run" / "model_final.pth").exists()


def test_a_signal_ends_a_mere_evaluation(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from se_det.integrations import detectron2_engine as engine

    assert train("detectron2", data, tmp_path / "run", "SOLVER.MAX_ITER", "1") == 0
    monkeypatch.setattr(engine.Trainer, "test", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    capsys.readouterr()
    weights = ["MODEL.WEIGHTS", str(tmp_path / "run" / "model_final.pth")]
    assert train("detectron2", data, tmp_path / "eval", *weights, flags=("--eval-only",)) == 130
    assert capsys.readouterr().err.strip() == "error: SIGINT ended the run before its evaluation was done."


def test_a_best_metric_that_does_not_exist_is_refused_first(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train("detectron2", data, tmp_path / "run", "TEST.BEST_METRIC", "bbox/AP_50") == 1
    assert "TEST.BEST_METRIC 'bbox/AP_50' is not a metric of this evaluation" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_it_writes_the_report(data: list[str], tmp_path: Path) -> None:
    """With the numbers that Detectron2 gives."""
    keys = ["SOLVER.BASE_LR", "0.01", "SOLVER.MAX_ITER", "40", "SOLVER.REFERENCE_BATCH", "0"]
    assert train("detectron2", data, tmp_path / "run", *keys) == 0
    found = metrics(tmp_path / "run")["bbox"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert found["AP50"] > 0 and f"{found['AP50']:.1f}" in page and "<svg" in page and "se_det_val" in page
