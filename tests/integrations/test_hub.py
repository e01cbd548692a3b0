"""Weights to the Hugging Face Hub and back, through its own package and a small server of its kind; the model card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from se_det.config import get_cfg, load_config
from se_det.detection import build_detector
from se_det.errors import ConfigError, WeightsError
from se_det.inference import Predictor
from se_det.integrations.hub import write_repository
from se_det.integrations.model_card import NO_LICENCE, metrics_of
from se_det.weights import resolve_weights

ROOT = Path(__file__).resolve().parents[2]
TINY = ["MODEL.WEIGHTS", "/home/anna/start.pth", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0",
        "MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", "8", "MODEL.ROI_BOX_HEAD.FC_DIM", "8",
        "MODEL.ROI_HEADS.NUM_CLASSES", "2", "INPUT.MIN_SIZE_TEST", "32", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
        "MODEL.RPN.POST_NMS_TOPK_TEST", "10", "OUTPUT_DIR", "/home/anna/secret/run", "SOLVER.MAX_ITER", "300",
        "DATASETS.TRAIN_JSON", "/home/anna/secret/birds.json", "DATASETS.TRAIN_IMAGES", "/home/anna/secret",
        "TEST.IMS_PER_BATCH", "1"]  # fmt: skip
METRICS = [
    {"iteration": 200, "bbox/AP": 11.0}, {"iteration": 300, "total_loss": 0.5},
    {"iteration": 300, "bbox/AP": 42.1234, "bbox/AP50": 60.0, "bbox/AP-owl": 3.0, "bbox/APs": None},
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    cfg = load_config("faster_rcnn_se_r18_fpn.yaml", TINY, defaults=get_cfg())
    state = {
        "engine": "builtin", "model": build_detector(cfg).state_dict(), "config": cfg.dump(), "iteration": 300,
        "categories": [{"id": 7, "name": "owl"}, {"id": 9, "name": "wren"}], "thresholds": {"owl": 0.3, "wren": None},
        "optimizer": {"state": {}},
    }  # fmt: skip
    torch.save(state, folder / "model_best.pth")
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    (folder / "report.html").write_text("<img>")
    return folder / "model_best.pth"


def card(folder: Path) -> tuple[dict, str]:
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def test_a_repository_is_all_that_predicting_needs(checkpoint: Path, tmp_path: Path) -> None:
    write_repository(checkpoint, tmp_path, "anna/birds", license="cc-by-4.0")
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.yaml", "README.md"}
    for path in tmp_path.iterdir():
        assert b"/home/anna" not in path.read_bytes(), path
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    ours, theirs = (Predictor(path) for path in (checkpoint, tmp_path / "model.safetensors"))
    assert theirs.class_names == ["owl", "wren"] and theirs.category_ids == [7, 9]
    assert theirs.thresholds == ours.thresholds == [0.3, None]
    for name, column in ours(image).items():
        assert np.array_equal(theirs(image)[name], column)
    head, text = card(tmp_path)
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "se_det"
    assert head["pipeline_tag"] == "object-detection"
    [model] = head["model-index"]
    [result] = model["results"]
    assert model["name"] == "birds" and result["dataset"]["name"] == "birds"
    assert [(m["name"], m["value"]) for m in result["metrics"]] == [("box AP", 42.123), ("box AP50", 60.0)]
    for part in ('Predictor("hf://anna/birds")', "after 300 steps", "owl, wren", "| `SOLVER.MAX_ITER` | `300` |"):
        assert part in text


def test_what_is_not_known_is_said(checkpoint: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.pth"
    alone.write_bytes(checkpoint.read_bytes())
    write_repository(alone, tmp_path / "out", "anna/birds")
    head, text = card(tmp_path / "out")
    assert "license" not in head and "model-index" not in head
    assert NO_LICENCE in text and "No evaluation of these weights was found" in text
    assert metrics_of(checkpoint.parent, 200) == {"bbox/AP": 11.0} and metrics_of(checkpoint.parent, 7) == {}
    torch.save({"model": {"a": torch.zeros(3)}}, tmp_path / "bare.pth")
    with pytest.raises(ConfigError, match="carries no config"):
        write_repository(tmp_path / "bare.pth", tmp_path / "out", "anna/birds")


def test_the_card_is_what_the_hub_reads(checkpoint: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="reads model cards")
    write_repository(checkpoint, tmp_path, "anna/birds", license="apache-2.0")
    data = hub.ModelCard.load(tmp_path / "README.md").data
    assert [(r.metric_name, r.metric_value) for r in data.eval_results] == [("box AP", 42.123), ("box AP50", 60.0)]


SCRIPT = """
import json, sys
from se_det.cli.main import run_command
assert run_command("push", [sys.argv[1], "anna/birds", "--license", "mit", "--private"]) == 0
assert run_command("push", [sys.argv[1], "anna/birds", "--license", "mit", "--revision", "next"]) == 0
assert "huggingface_hub" in sys.modules
import se_det
for address in ("hf://anna/birds", "hf://anna/birds@next", "hf://anna/one/deep/other.pth", "hf://anna/one"):
    predictor = se_det.Predictor(address)
    print("NAMES", predictor.class_names)
for address in ("hf://anna/none", "hf://anna/birds@gone", "hf://anna/birds/gone.pth", "hf://anna/two", "hf://anna"):
    try:
        se_det.Predictor(address)
    except se_det.errors.WeightsError as error:
        print("REFUSED", error)
"""


@pytest.mark.slow
def test_push_and_fetch(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="pushes and fetches")
    from .fake_hub import FakeHub

    with FakeHub().running() as hub:
        data = checkpoint.read_bytes()
        hub.repositories["anna/one"] = {"main": {"deep/other.pth": data, "README.md": b""}}
        hub.repositories["anna/two"] = {"main": {"a.pth": data, "b.pth": data}}
        environment = {
            **os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip

        def python(code: str) -> str:
            done = subprocess.run(
                [sys.executable, "-c", code, str(checkpoint)], capture_output=True, text=True, check=False,
                env=environment, cwd=tmp_path,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:] + str(hub.requests[-8:])
            return done.stdout

        said = python(SCRIPT)
        assert said.count("NAMES ['owl', 'wren']") == 4
        refused = [line for line in said.splitlines() if line.startswith("REFUSED")]
        for line, sentence in zip(
            refused,
            (
                "anna/none could not be fetched: there is no such repository, or it is private",
                "the repository has no such revision", "the repository has no such file",
                "several weight files (a.pth, b.pth): name one, as in hf://anna/two/a.pth",
                "hf://anna is no address on the Hub",
            ),
            strict=True,
        ):  # fmt: skip
            assert sentence in line
        assert set(hub.repositories["anna/birds"]) == {"main", "next"} and "anna/birds" in hub.private
        assert {"model.safetensors", "README.md", "config.yaml"} <= set(hub.repositories["anna/birds"]["next"])
    environment |= {"HF_HUB_OFFLINE": "1"}  # the server is gone: from the Hub's cache
    code = """import se_det
print("NAMES", se_det.Predictor("hf://anna/birds").class_names)
try:
    se_det.Predictor("hf://anna/other")
except se_det.errors.WeightsError as error:
    print(error)
"""
    said = python(code)
    assert "NAMES ['owl', 'wren']" in said and "not in the Hub's cache here" in said


def test_the_package_is_named_where_it_is_missing(checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"hf://a/b needs the package huggingface_hub.*se_det\[hub\]"):
        resolve_weights("hf://a/b")
