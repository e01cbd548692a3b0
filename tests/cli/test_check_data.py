"""`se-det check-data` and `doctor`, and the check at the start of training."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from broken_sets import BROKEN, Set, pixels

from se_det.cli.main import main
from se_det.config import get_cfg
from se_det.data.check import result_cache
from se_det.errors import DataError
from se_det.training.datasets import train_datasets


@pytest.fixture
def it(tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return Set(tmp_path / "data")


def check(it, *options):
    path, folder = it.save()
    return main(["check-data", "--json", str(path), "--images", str(folder), *map(str, options)])


def config(it):
    path, folder = it.save()
    cfg = get_cfg()
    cfg.DATASETS.TRAIN_JSON, cfg.DATASETS.TRAIN_IMAGES = str(path), str(folder)
    return cfg


def test_sound(it, capsys, tmp_path):
    assert check(it, "--output", tmp_path / "r.json", "--histograms", tmp_path / "h.png") == 0
    assert "4 images" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert (
        [f["kind"] for f in report["findings"]] == ["no-mask"] * 2
        and report["annotations"] == 8
        and report["images_decoded"] == 4
    )
    assert cv2.imread(str(tmp_path / "h.png")).shape[1] == 960


def test_errors_are_exit_code_1_and_listed(it, capsys, tmp_path):
    BROKEN["truncated PNG"][0](it)
    BROKEN["box outside"][0](it)
    assert check(it, "--output", tmp_path / "r.json", "--fix", tmp_path / "out") == 1
    out = capsys.readouterr().out
    assert "b.png" in out and "annotation 80" in out and "2 errors" in out
    found = json.loads((tmp_path / "r.json").read_text())["findings"]
    assert {f["kind"] for f in found if f["severity"] == "error"} == {"truncated-image", "box-outside"}
    fixed = tmp_path / "out"
    assert main(["check-data", "--json", str(fixed / "annotations.json"), "--images", str(fixed / "images")]) == 0
    assert len(json.loads((fixed / "changes.json").read_text())) == 2


def test_warnings_are_exit_code_0(it, capsys):
    BROKEN["equal pixels"][0](it)
    assert check(it) == 0
    assert "duplicate-image" in capsys.readouterr().out


def test_against_another_split(it, capsys, tmp_path):
    (tmp_path / "val").mkdir()
    val = Set(tmp_path / "val")
    for number, name in enumerate(("a.jpg", "b.png", "sub/c.jpg")):
        val.put(name, Image.fromarray(pixels(50 + number)))
    path, folder = val.save()
    assert check(it, "--against", path, "--against-images", folder) == 1
    out = capsys.readouterr().out
    assert "split-duplicate" in out and "d.png" in out and "1 errors" in out
    (val.images / "d.png").unlink()
    assert check(it, "--against", path, "--against-images", folder) == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--json", "absent.json"), "absent.json"),
        (("--images", "absent"), "absent"),
        (("--against-images", "x"), "--against"),
        (("--json-only", "--fix", "x"), "--json-only"),
        (("--fix", "DATA/images/new"), "--fix"),
    ],
)
def test_refusals(it, capsys, options, named):
    assert check(it, *(o.replace("DATA", str(it.folder)) for o in options)) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and named in message and len(message.strip().splitlines()) == 1
    assert sorted(p.name for p in it.folder.iterdir()) == ["images", "set.json"]


def test_training_refuses_images_it_would_end_at(it):
    BROKEN["another size"][0](it)
    with pytest.raises(DataError, match=r"1 images .*image 2 .*images/b.png.*check-data"):
        train_datasets(config(it))


def test_training_logs_the_verdict(it, caplog):
    caplog.set_level(logging.INFO)
    train_datasets(config(it))
    assert "no errors and nothing to warn of" in caplog.text
    BROKEN["box sticks out"][0](it)
    train_datasets(config(it))
    assert "1 box-sticks-out" in caplog.text


def test_a_kept_verdict_is_used_until_something_changes(it, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(result_cache, "NOT_CACHED", 0)
    monkeypatch.setattr(result_cache, "CHECKED_AT_ONCE", 0)
    cfg = config(it)
    train_datasets(cfg)
    assert "were not checked" in caplog.text
    assert check(it) == 0

    def refuse(*args, **kwargs):
        raise AssertionError("decoded again")

    monkeypatch.setattr(result_cache, "check_dataset", refuse)
    caplog.clear()
    train_datasets(cfg)
    assert "no errors" in caplog.text
    os.utime(it.images / "b.png", (1, 1))
    caplog.clear()
    train_datasets(cfg)
    assert "were not checked, or changed" in caplog.text
    for path in (Path(os.environ["SE_DET_CACHE"]) / "checks").iterdir():
        path.write_text("torn {")
    train_datasets(cfg)


def test_a_cache_that_cannot_be_written_does_not_matter(it, monkeypatch, tmp_path):
    monkeypatch.setattr(result_cache, "NOT_CACHED", 0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "file"))
    assert check(it) == 0
    train_datasets(config(it))


def test_doctor(it, capsys, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(it.folder / "nowhere"))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    import torch

    for text in (torch.__version__.split("+")[0], "nowhere", os.environ["SE_DET_CACHE"], "CPUs", "Missing:"):
        assert text in out
    assert np.__version__ in out


def test_doctor_names_what_a_missing_package_is_for(monkeypatch, capsys):
    from se_det.cli import doctor

    monkeypatch.setattr(doctor, "version_of", lambda package: None if package in ("timm", "detectron2") else "1.0")
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "timm, for timm/<name> backbones (optional)" in out and "detectron2, for --engine detectron2" in out
    assert "a C++ compiler (g++, or what CXX names), for TEST.COMPILE (optional)" in out


def test_the_instructions_of_a_cpu():
    from se_det.cli.doctor import cpu_instructions

    assert cpu_instructions({"processor": "0", "flags": "fpu avx2 amx_bf16"}) == "AVX2, AMX bf16"
    assert cpu_instructions({"Features": "fp bf16"}) == "bf16"
    assert cpu_instructions({"flags": "fpu"}).startswith("none of AVX2, AVX512")
    assert cpu_instructions({}) == "this system does not tell the CPU's instructions"
