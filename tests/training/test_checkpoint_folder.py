"""Checkpoints and the folder they are in."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from se_det.config.defaults import get_cfg
from se_det.errors import CheckpointError
from se_det.training.checkpoint import Checkpointer, load_checkpoint
from se_det.training.output_folder import check_folder, prepare_folder
from se_det.training.resume_checks import changed_keys, check_engine, check_resumable

CATEGORIES = [{"id": 3, "name": "cup"}, {"id": 9, "name": "owl"}]


def test_the_newest_is_by_last_checkpoint_and_then_by_steps(tmp_path: Path) -> None:
    saver = Checkpointer(tmp_path)
    assert saver.latest() is None
    for name, step in (("model_0000900", 900), ("model_final", 1000), ("model_0001500", 1500)):
        saver.save(name, {"iteration": step})
    saver.save("model_best", {"iteration": 9999}, mark_last=False)
    assert saver.latest()[1] == {"iteration": 1500}
    (tmp_path / "model_0001500.pth").write_bytes(b"torn")
    assert saver.latest()[1] == {"iteration": 1000}
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "model_final.pth").write_bytes(b"")
    assert saver.latest()[1] == {"iteration": 900}
    (tmp_path / "model_0000900.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=rf"No checkpoint in {tmp_path} can be read.*model_"):
        saver.latest()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = Checkpointer(tmp_path).save("model_0000001", {"model": {"w": torch.arange(1000.0)}})
    whole = path.read_bytes()
    for length in range(0, len(whole), 311):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model_0000001\.pth is damaged or is not a checkpoint"):
            load_checkpoint(path)
    flipped = bytearray(whole)
    flipped[whole.index(torch.tensor([7.0, 8.0]).numpy().tobytes())] ^= 255
    path.write_bytes(flipped)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Evil()}, tmp_path / "model_final.pth", pickle_module=pickle)
    with pytest.raises(CheckpointError, match="model_final.pth is refused: it asks for .*getattr"):
        load_checkpoint(tmp_path / "model_final.pth")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "model_none.pth")


@pytest.mark.parametrize("value", [np.float64(1.0), np.zeros(2), Path("x"), {1, 2}])
def test_only_plain_values_are_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"checkpoint\['best'\]\['value'\] is a"):
        Checkpointer(tmp_path).save("model_0000001", {"best": {"value": value}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("trace", ["config.yaml", "metrics.json", "model_0000005.pth", "last_checkpoint", "log.txt"])
def test_a_folder_with_a_run_is_refused_and_left_alone(tmp_path: Path, trace: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    check_folder(tmp_path)
    (tmp_path / trace).write_text("a run")
    with pytest.raises(CheckpointError, match=rf"{tmp_path} holds another run \({trace}\).*--resume.*--overwrite"):
        check_folder(tmp_path)
    check_folder(tmp_path, overwrite=True)
    assert (tmp_path / trace).read_text() == "a run"


def test_overwriting_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    mine = ["notes.txt", "weights.bin", "inference/drawing.png", "sub/model_final.pth"]
    run = ["config.yaml", "metrics.json", "log.txt", "last_checkpoint", "model_final.pth", "model_0000005.pth",
           "events.out.tfevents.1.host", "inference/metrics.json", "inference/coco_instances_results.json",
           ".model_0000010.pth.x1.tmp"]  # fmt: skip
    for name in mine + run:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    prepare_folder(tmp_path, overwrite=True)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(mine)


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*missing to resume"):
        check_folder(tmp_path / "missing", resume=True)
    (tmp_path / "model_best.pth").touch()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        check_folder(tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="exclude each other"):
        check_folder(tmp_path, resume=True, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        check_folder(tmp_path / "file")
    assert not (tmp_path / "missing").exists()


def test_checkpoints_of_others_start_a_run_and_do_not_continue_one() -> None:
    whole = {"engine": "se_det", "model": {}, "optimizer": {}, "iteration": 1, "config": "SEED: 7", "categories": []}
    check_engine(whole, "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth is damaged: it does not say with what config"):
        check_engine({**whole, "config": None}, "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth was written by Detectron2's trainer.*MODEL.WEIGHTS x\.pth"):
        check_engine({"model": {}, "optimizer": {}, "scheduler": {}, "iteration": 1, "trainer": {}}, "x.pth")
    with pytest.raises(CheckpointError, match=r"another program"):
        check_engine({"model": {}, "iteration": 1}, "x.pth")
    with pytest.raises(CheckpointError, match=r"no state of a run"):
        check_engine({"engine": "se_det", "model": {}}, "x.pth")


@pytest.mark.parametrize(
    ("key", "value", "refused"),
    [
        ("SOLVER.MAX_ITER", 7, False),
        ("SOLVER.CHECKPOINT_PERIOD", 7, False),
        ("TEST.EVAL_PERIOD", 7, False),
        ("DATALOADER.NUM_WORKERS", 0, False),
        ("MODEL.DEVICE", "cpu", False),
        ("OUTPUT_DIR", "elsewhere", False),
        ("SEED", -1, False),
        ("SEED", 8, True),
        ("SOLVER.IMS_PER_BATCH", 8, True),
        ("SOLVER.BASE_LR", 0.5, True),
        ("MODEL.GATE.NAME", "se", True),
        ("MODEL.RESNETS.DEPTH", 101, True),
        ("DATASETS.TRAIN", ("other",), True),
        ("INPUT.MIN_SIZE_TRAIN", (600, 800), True),
    ],
)
def test_a_resumed_run_computes_what_it_would_have(key: str, value: object, refused: bool) -> None:
    cfg = get_cfg()
    cfg.SEED = 7
    saved = cfg.dump()
    assert changed_keys(saved, cfg) == []
    cfg.merge_from_list([key, value])
    state = {"config": saved, "categories": CATEGORIES}
    if not refused:
        check_resumable(state, cfg, CATEGORIES, "x.pth")
        return
    with pytest.raises(CheckpointError, match=rf"x\.pth cannot be resumed .*: {key} \(was .*, now "):
        check_resumable(state, cfg, CATEGORIES, "x.pth")


def test_a_run_is_not_resumed_on_other_categories() -> None:
    cfg = get_cfg()
    with pytest.raises(CheckpointError, match=r"2 \(3 cup, 9 owl\) then, 1 \(3 cup\) now"):
        check_resumable({"config": cfg.dump(), "categories": CATEGORIES}, cfg, CATEGORIES[:1], "x.pth")
