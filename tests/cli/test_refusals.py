"""Bad input on the command line: exit code 1, one sentence that names file, key or value, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from se_det.cli.main import main

# Writes on a pipe that nobody reads, its own output or another.
BROKEN = """
import os, sys
from se_det.cli import doctor, main
def run(args):
    if sys.argv[1] == "other":
        reading, writing = os.pipe()
        os.close(reading)
        os.write(writing, b"x")
    while True:
        print("x" * 10000)
doctor.run = run
sys.exit(main.main(["doctor"]))
"""

SCRATCH = ["MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.DEVICE", "cpu",
           "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "1",
           "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]  # fmt: skip


def coco() -> dict:
    boxes = [[4, 4, 20, 20], [10, 8, 30, 20]]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
             "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3]]]}
            for i, box in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 7, "name": "cat"}],
    }  # fmt: skip


class Case:
    """A data set in a folder, and the command that trains on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.coco = folder, coco()
        (folder / "images").mkdir()
        for i in (1, 2):
            cv2.imwrite(str(folder / "images" / f"{i}.jpg"), np.full((48, 64, 3), 90 * i, np.uint8))

    @property
    def json(self) -> Path:
        return self.folder / "train.json"

    def train(self, *overrides: str, options: tuple[str, ...] = (), write: bool = True) -> int:
        if write:
            self.json.write_text(json.dumps(self.coco))
        return main(["train", "--config-file", "mask_rcnn_se_r18_fpn.yaml", "--train-json", str(self.json),
                     "--train-images", str(self.folder / "images"), *options, *SCRATCH,
                     "OUTPUT_DIR", str(self.folder / "out"), *overrides])  # fmt: skip


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_it_trains_when_nothing_is_wrong(case, capsys):
    assert case.train() == 0, capsys.readouterr().err
    assert (case.folder / "out" / "model_final.pth").is_file()
    assert case.train() == 1  # the folder holds a run now
    assert "--resume" in capsys.readouterr().err


def edit(path: str, value):
    """A change of the JSON at `a.0.b`."""

    def change(case: Case) -> None:
        node = case.coco
        *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        for part in parents:
            node = node[part]
        node[last] = value

    return change


REFUSED = {
    "missing image": (lambda c: (c.folder / "images/2.jpg").unlink(), (), "2.jpg"),
    "not JSON": (lambda c: c.json.write_text("{"), (), "train.json"),
    "not COCO": (lambda c: c.json.write_text('{"shapes": []}'), (), "train.json"),
    "annotation id twice": (edit("annotations.1.id", 1), (), "id 1"),
    "image id twice": (edit("images.1.id", 1), (), "id 1"),
    "undeclared category": (edit("annotations.1.category_id", 9), (), "9"),
    "box without area": (edit("annotations.0.bbox", [4, 4, 0, 20]), (), "annotation 1"),
    "file outside": (edit("images.0.file_name", "../../etc/passwd"), (), "../../etc/passwd"),
    "misspelt key": (lambda c: None, ("SOLVER.BASE_RL", "1"), "SOLVER.BASE_LR"),
    "frozen norms without weights": (lambda c: None, ("MODEL.RESNETS.NORM", "FrozenBN"), "MODEL.RESNETS.NORM"),
    "frozen stages without weights": (lambda c: None, ("MODEL.BACKBONE.FREEZE_AT", "2"), "MODEL.BACKBONE.FREEZE_AT"),
    "BN of one image": (lambda c: None, ("MODEL.GATE.NAME", "rg_se", "MODEL.GATE.NORM", "BN",
                                         "SOLVER.IMS_PER_BATCH", "1"), "MODEL.GATE.NORM"),
    "SyncBN on the CPU": (lambda c: None, ("MODEL.RESNETS.NORM", "SyncBN"), "SyncBN"),
    "weights that are not there": (lambda c: None, ("MODEL.WEIGHTS", "absent.pth"), "absent.pth"),
    "unknown gate": (lambda c: None, ("MODEL.GATE.NAME", "sse"), "MODEL.GATE.NAME"),
    "other engine's model": (lambda c: None, ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"), "--engine detectron2"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_sentence_before_anything_is_written(case, capsys, name):
    spoil, overrides, named = REFUSED[name]
    case.json.write_text(json.dumps(case.coco))
    before = case.json.read_text()
    spoil(case)
    assert case.train(*overrides, write=case.json.read_text() == before) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and named in message, message
    assert "Traceback" not in message and len(message.strip().splitlines()) == 1
    assert not (case.folder / "out").exists()


def test_a_truncated_image_is_named(case, capsys):
    path = case.folder / "images" / "2.jpg"
    path.write_bytes(path.read_bytes()[:300])
    assert case.train() == 1
    assert str(path) in capsys.readouterr().err
    assert not list((case.folder / "out").glob("*.pth"))


def test_more_gpus_than_there_are(case, capsys):
    assert case.train(options=("--num-gpus", "64")) == 1
    assert "--num-gpus is 64" in capsys.readouterr().err


def test_evaluating_no_weights(case, capsys):
    assert case.train(options=("--eval-only",)) == 1
    assert "MODEL.WEIGHTS is empty" in capsys.readouterr().err


def test_wrong_usage_is_2_and_scripts_are_the_same_command():
    root = Path(__file__).resolve().parents[2]
    for script in sorted((root / "tools").glob("*.py")):
        result = subprocess.run(
            [sys.executable, script, "--no-such-option"], capture_output=True, text=True, cwd=root.parent
        )
        assert result.returncode == 2 and f"usage: {script.name}" in result.stderr, result.stderr
        assert "torch" not in result.stderr


def test_prediction(case, tmp_path, capsys):
    assert case.train() == 0
    weights = str(case.folder / "out" / "model_final.pth")
    command = ["predict", "--config-file", str(case.folder / "out" / "config.yaml"), "--weights", weights]
    (case.folder / "images" / "bad.jpg").write_bytes(b"not an image")
    assert main([*command, "--output", str(tmp_path / "drawn"), str(case.folder / "images")]) == 1
    assert "bad.jpg" in "".join(capsys.readouterr())
    assert {p.name for p in (tmp_path / "drawn").iterdir()} == {"1.jpg", "2.jpg", "detections.json"}
    found = json.loads((tmp_path / "drawn" / "detections.json").read_text())
    assert all(entry["category_id"] == 7 and Path(entry["file_name"]).name in ("1.jpg", "2.jpg") for entry in found)
    assert main([*command, "--output", str(tmp_path / "x"), str(tmp_path / "absent")]) == 1
    assert "absent" in capsys.readouterr().err


def test_a_benchmark_of_nothing_is_refused(capsys):
    assert main(["benchmark", "gates", "--repeat", "0"]) == 1
    assert "--repeat must be at least 1, got 0" in capsys.readouterr().err
    for flag, value, least in (("--workers", "-1", 0), ("--size", "31", 32), ("--batches", "0", 1)):
        assert main(["benchmark", "pretrain", "--data", "x", flag, value]) == 1
        assert f"{flag} must be at least {least}, got {value}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_measures_training_and_inference(case, tmp_path):
    """Our own ways only, or Detectron2's beside them."""
    case.json.write_text(json.dumps(case.coco))
    figures, table = tmp_path / "figures.json", tmp_path / "figures.csv"
    command = ["--config-file", "configs/faster_rcnn_se_r18_fpn.yaml", "--images", "1", "--repeat", "1"]
    data = ["--val-json", str(case.json), "--val-images", str(case.folder / "images")]
    keys = ["MODEL.DEVICE=cpu", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MIN_SIZE_TRAIN", "(64,)",
            "SOLVER.IMS_PER_BATCH", "1"]  # fmt: skip
    assert main(["benchmark", "detector", *command, *data, "--json", str(figures), "--csv", str(table), *keys]) == 0
    rows = json.loads(figures.read_text())["rows"]
    assert {"se_det", "se_det, bfloat16"} <= {row["way"] for row in rows} and len(
        {row["measured"] for row in rows}
    ) == 2
    assert len(table.read_text().splitlines()) == len(rows) + 1


def test_predicting_fewer_than_one_image_is_refused(tmp_path, capsys):
    command = ["predict", "--config-file", "configs/faster_rcnn_se_r18_fpn.yaml", "--output", str(tmp_path / "x")]
    assert main([*command, "--limit", "-1", str(tmp_path)]) == 1
    assert "--limit must be at least 1, got -1" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_is_refused_before_the_work(case, tmp_path, capsys):
    assert case.train() == 0
    blocked = tmp_path / "a_file"
    blocked.write_text("mine")
    run = case.folder / "out"
    weights = str(run / "model_final.pth")
    command = ["predict", "--config-file", str(run / "config.yaml"), "--weights", weights, "--output", str(blocked)]
    assert main([*command, str(case.folder / "images")]) == 1
    assert "a_file cannot be written" in capsys.readouterr().err
    validation = ("--eval-only", "--val-json", str(case.json), "--val-images", str(case.folder / "images"))
    assert case.train("MODEL.WEIGHTS", weights, "OUTPUT_DIR", str(blocked), options=validation) == 1
    assert "a_file" in capsys.readouterr().err
    assert blocked.read_text() == "mine"


@pytest.mark.parametrize(("which", "told"), [("own", ""), ("other", "BrokenPipeError")])
def test_only_those_who_left_are_told_nothing(which: str, told: str) -> None:
    words = [sys.executable, "-c", BROKEN, which]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if which == "own":
            process.stdout.close()
        last = process.stderr.read().strip().splitlines()[-1:]
    assert process.returncode == 1 and "".join(last).startswith(told) and bool(last) == bool(told)
