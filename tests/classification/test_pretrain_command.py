"""`se-det pretrain`: the authors' options, and what is refused."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from se_det.classification import classify, load_classifier
from se_det.classification.preprocessing import Preprocessing
from se_det.cli import pretrain
from se_det.cli.main import run_command
from se_det.config import load_config
from se_det.data import read_image
from se_det.detection import build_detector
from se_det.errors import ConfigError, DataError, WeightsError
from se_det.training.checkpoint import load_checkpoint
from se_det.weights import load_weights, read_weights


def config(line: str):
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    args = parser.parse_args(shlex.split(line))
    return pretrain._config(args, args.resume or None)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("RGSE50", "rg_se_resnet50"), ("RGSEX50", "rg_se_resnext50_32x4d"), ("SPSE50", "sp_se_resnet50"),
     ("SPSEX50", "sp_se_resnext50_32x4d"), ("cbam_resnet101", "cbam_resnet101")],
)  # fmt: skip
def test_the_authors_command_stands(alias: str, name: str) -> None:
    cfg = config(
        f"--train_data_path train.txt --test_data_path val.txt -a {alias} --epochs 100 --schedule 30 -b 256 --lr 0.1"
    )
    assert name == cfg.MODEL.NAME
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == ("train.txt", "val.txt")
    solver = cfg.SOLVER
    assert (solver.EPOCHS, list(solver.EPOCH_STEPS), solver.GAMMA) == (100, [30, 60, 90], 0.1)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.REFERENCE_BATCH) == (256, 0.1, 0)
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM, solver.WEIGHT_DECAY_BIAS) == (1e-4, 1e-4, None)
    assert (cfg.INPUT.IMAGE_SIZE, solver.LABEL_SMOOTHING, solver.WARMUP_EPOCHS) == (224, 0.0, 0.0)


def test_the_authors_other_options() -> None:
    cfg = config("--lrp 0.1 --image-size 448 --batch-size 32 --epochs 20 --schedule 8 --wd 0.001 --momentum 0.8 -j 3")
    assert (cfg.SOLVER.TRUNK_LR_FACTOR, cfg.INPUT.IMAGE_SIZE, cfg.SOLVER.IMS_PER_BATCH) == (0.1, 448, 32)
    assert (list(cfg.SOLVER.EPOCH_STEPS), cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.MOMENTUM) == ([8, 16], 3, 0.8)
    assert (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM) == (0.001, 0.001)
    assert config("--recipe se_paper").SOLVER.BASE_LR == 0.6
    assert config("--train_data_path 2012 --output 7").DATASETS.TRAIN == "2012"
    assert config("SOLVER.BASE_LR 0.2").SOLVER.REFERENCE_BATCH == 256


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the command, on lists with the authors' header, of one step."""
    folder = tmp_path_factory.mktemp("command")
    for part in ("train", "val"):
        files = sorted((pictures / part).glob("*/*.jpg"))
        classes = sorted({f.parent.name for f in files})
        lines = [f"{part}/{f.parent.name}/{f.name} {classes.index(f.parent.name)}\n" for f in files]
        (folder / f"{part}.txt").write_text("imagename label\n" + "".join(lines))
    line = (
        f"--train_data_path {folder}/train.txt --test_data_path {folder}/val.txt --root {pictures} -a se_resnet18 "
        f"--epochs 1 --schedule 30 -b 18 --lr 0.1 -j 0 --image-size 32 --output {folder}/out"
    )
    assert run_command("pretrain", shlex.split(line)) == 0
    return folder


def test_a_run_by_the_command(run: Path, pictures: Path, capsys: pytest.CaptureFixture) -> None:
    out = run / "out"
    assert {"model_final.pth", "model_best.pth", "log.txt", "metrics.json", "config.yaml"} <= {
        p.name for p in out.iterdir()
    }
    own = json.loads((out / "inference" / "metrics.json").read_text())
    (out / "inference" / "metrics.json").unlink()
    # The checkpoint's own recipe is evaluated, so neither model nor image size need be said.
    line = f"--evaluate --resume {out}/model_final.pth --test_data_path {run}/val.txt --output {out}"
    assert run_command("pretrain", shlex.split(line)) == 0
    again = json.loads((out / "inference" / "metrics.json").read_text())
    # Norms are folded in this command, so the loss has another rounding.
    assert again["classification"].pop("loss") == pytest.approx(own["classification"].pop("loss"), rel=1e-4)
    assert again == own
    assert run_command("pretrain", ["--resume", "--output", str(out), *shlex.split(
        f"--train_data_path {run}/train.txt --test_data_path {run}/val.txt --root {pictures} -a se_resnet18 --epochs 1 "
        "--schedule 30 -b 18 --lr 0.1 -j 0 --image-size 32")]) == 1  # fmt: skip
    assert "is finished: 1 steps are done" in capsys.readouterr().err


def test_the_backbone_starts_a_detector_with_nothing_to_convert(run: Path, tmp_path: Path) -> None:
    best = run / "out" / "model_best.pth"
    exported = tmp_path / "se_resnet18.safetensors"
    assert run_command("pretrain", ["--export", str(exported), "--resume", str(best)]) == 0
    saved = load_checkpoint(best)
    keys = ["MODEL.MASK_ON", False, "MODEL.DEVICE", "cpu"]
    for path in (best, exported):
        detector = build_detector(load_config("configs/mask_rcnn_se_r18_fpn.yaml", keys))
        account = load_weights(detector, path)
        trunk = {name for name in detector.state_dict() if name.startswith("backbone.bottom_up.")}
        assert trunk - {name for name in trunk if name.endswith("num_batches_tracked")} <= set(account.loaded)
        assert sorted(account.unexpected) == ["linear.bias", "linear.weight"]
        name = "res4.1.gate.fc1.weight"
        assert torch.equal(detector.state_dict()[f"backbone.bottom_up.{name}"], saved["model"][f"trunk.{name}"])
        # What the detector's config has to follow, under the keys that it has itself.
        file = read_weights(path)
        assert "FORMAT: RGB" in file.extra["config"]
        assert file.extra["architecture"]["pixel_std"] == [58.395, 57.12, 57.375]
    with safe_open(exported, "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_classify_says_what_it_sees(run: Path, pictures: Path, tmp_path: Path) -> None:
    best = run / "out" / "model_best.pth"
    photo = pictures / "val" / "ash" / "100.jpg"
    model = load_classifier(best)
    name, score = classify(model, photo)
    assert not model.training
    view = Preprocessing(size=32)
    x = view(torch.from_numpy(read_image(photo, "RGB").copy()).permute(2, 0, 1))
    expected = model(x).softmax(1)[0]
    assert (name, score) == (str(int(expected.argmax())), pytest.approx(expected.max().item(), rel=1e-6))
    assert model.forward_features(x).shape == (1, 512, 1, 1)
    assert classify(best, read_image(photo, "RGB")) == (name, pytest.approx(score, rel=1e-4))  # norms are folded
    assert classify(model.train(), photo, class_names=["a", "b", "c"])[0] == "abc"[int(name)]
    assert model.training
    bare = torch.nn.Linear(1, 1)
    with pytest.raises(WeightsError, match="does not say what images it wants"):
        classify(bare, photo)
    torch.save(bare.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="only checkpoints of pretraining do"):
        load_classifier(tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="There is no weight file"):
        classify(tmp_path / "none.pth", photo)
    for given in (None, 5, b"a.jpg", [photo], torch.zeros(8, 8, 3, dtype=torch.uint8), np.zeros((8, 8), np.uint8),
                  np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)):  # fmt: skip
        with pytest.raises(DataError, match=r"^An image must be .* in the order RGB .*, got .*\.$"):
            classify(model, given)
    for names in (["a"], list("abcd")):
        with pytest.raises(ConfigError, match=f"^{len(names)} class names were given for 3 classes"):
            classify(model, photo, class_names=names)
    for neither in (None, {"model": 1}):
        with pytest.raises(ConfigError, match="must be a network, or the path"):
            classify(neither, photo)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("", "There is no path to images"),
        ("--train_data_path nowhere", "There is nothing at nowhere"),
        ("--recipe classic", "no config file"),
        ("-a RGSE5", "There is no model 'RGSE5'"),
        ("--schedule 0", "--schedule must be above 0"),
        ("--evaluate", "No weights were given"),
        ("--evaluate --resume none.pth", "There is no checkpoint at 'none.pth'"),
        ("--evaluate --overwrite", "so --overwrite cannot be used with it"),
        ("--export x.pth --resume none.pth", "There is no checkpoint at 'none.pth'"),
        ("--resume runs/a/model_final.pth --output runs/b", "leave --output out"),
        ("--num-gpus 9", "--num-gpus is 9"),
        ("-b 0", "SOLVER.IMS_PER_BATCH must be at least 1"),
        ("SOLVER.LR 1", "no key SOLVER.LR"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    line: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    assert run_command("pretrain", words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert match in error
    assert not any(p.is_file() for p in tmp_path.rglob("*"))
