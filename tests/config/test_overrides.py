"""Keys on the command line and in YAML: what has one meaning is taken, in one way in every command."""

from __future__ import annotations

from pathlib import Path

import pytest

from se_det.cli.main import main
from se_det.config import load_config
from se_det.config.loading import get_key
from se_det.config.overrides import parse_overrides, split_assignments
from se_det.config.paths import expand_path, expand_paths
from se_det.errors import ConfigError
from se_det.weights import read_weights


def test_both_forms_in_any_mixture():
    words = ["SEED=3", "MODEL.MASK_ON", "True", "OUTPUT_DIR=a=b", "SOLVER.STEPS", "=", "(1, 2)", "MODEL.WEIGHTS="]
    assert parse_overrides(words) == [
        "SEED", "3", "MODEL.MASK_ON", "True", "OUTPUT_DIR", "a=b", "SOLVER.STEPS", "(1, 2)", "MODEL.WEIGHTS", ""
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="'SEED' has no value: write SEED=VALUE or SEED VALUE"):
        parse_overrides(["SEED"])
    assert split_assignments(["a.jpg", "TEST.PRECISION=bfloat16", "b=c.jpg"]) == (
        ["a.jpg", "b=c.jpg"], ["TEST.PRECISION", "bfloat16"]
    )  # fmt: skip


MEANINGS = [
    ("MODEL.MASK_ON", "true", True),
    ("MODEL.MASK_ON", "False", False),
    ("MODEL.MASK_ON", "yes", True),
    ("SOLVER.NESTEROV", "off", False),
    ("SOLVER.BASE_LR", "1e-4", 1e-4),
    ("SOLVER.BASE_LR", "-1e-4", -1e-4),
    ("SOLVER.MAX_ITER", "1e3", 1000),
    ("SOLVER.MAX_ITER", "1000.0", 1000),
    ("SOLVER.BASE_LR", "1", 1.0),
    ("INPUT.MIN_SIZE_TRAIN", "640", (640,)),
    ("INPUT.MIN_SIZE_TRAIN", "640,672", (640, 672)),
    ("INPUT.MIN_SIZE_TRAIN", "(640, 672)", (640, 672)),
    ("INPUT.MIN_SIZE_TRAIN", "[640, 672]", (640, 672)),
    ("SOLVER.STEPS", "100", (100,)),
    ("SOLVER.STEPS", "()", ()),
    ("DATASETS.TRAIN", "coco_2017_train", ("coco_2017_train",)),
    ("DATASETS.TRAIN", "a,b", ("a", "b")),
    ("MODEL.GATE.STAGES", "res4, res5", ["res4", "res5"]),
    ("OUTPUT_DIR", "2012", "2012"),
    ("OUTPUT_DIR", "'2012'", "2012"),
    ("OUTPUT_DIR", "True", "True"),
    ("MODEL.GATE.NAME", '"se"', "se"),
    ("SOLVER.WEIGHT_DECAY_BIAS", "None", None),
]


@pytest.mark.parametrize("key, text, value", MEANINGS, ids=[f"{k}={t}" for k, t, _ in MEANINGS])
def test_what_has_one_meaning_is_taken_on_the_command_line_and_in_yaml(tmp_path: Path, key, text, value):
    cfg = load_config(None, [key, text])
    assert get_key(cfg, key) == value and type(get_key(cfg, key)) is type(value)
    if key != "OUTPUT_DIR":  # which YAML has types for
        *sections, name = key.split(".")
        lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(sections)]
        lines.append(f"{'  ' * len(sections)}{name}: {text if text not in ('a,b',) else repr(text)}")
        (tmp_path / "c.yaml").write_text("\n".join(lines).replace(": None", ": null"))
        assert get_key(load_config(tmp_path / "c.yaml"), key) == value


@pytest.mark.parametrize("key, text", [
    ("MODEL.MASK_ON", "maybe"), ("MODEL.MASK_ON", "2"), ("SOLVER.MAX_ITER", "1.5"), ("MODEL.PIXEL_MEAN", "0.5"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "32"), ("SOLVER.BASE_LR", "fast"), ("INPUT.MIN_SIZE_TRAIN", "large"),
])  # fmt: skip
def test_what_has_none_is_refused_by_the_key(key, text):
    with pytest.raises(ConfigError, match=rf"the command line: {key} must be a"):
        load_config(None, [key, text])


COMMANDS = {
    "train": ["train", "--config-file", "configs/quickstart.yaml"],
    "pretrain": ["pretrain"],
    "predict": ["predict", "--config-file", "configs/quickstart.yaml", "--output", "out", "a.jpg"],
    "export": ["export", "--config-file", "configs/quickstart.yaml", "--output", "out.onnx"],
    "analyze-model": ["analyze-model", "--config-file", "configs/quickstart.yaml"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_assignments_and_names_unknown_keys(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"")
    assert main([*COMMANDS[command], "SOLVER.BASE_LRR=1"]) == 1
    assert "there is no key SOLVER.BASE_LRR. Did you mean 'SOLVER.BASE_LR'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    ["SOLVER.BASE_LRR", "1", "--num-gpus", "0"], ["--num-gpus", "0", "SOLVER.BASE_LRR", "1"],
    ["SEED=1", "--eval-only", "SOLVER.BASE_LRR=1", "--num-gpus", "0", "VERSION", "2"],
])  # fmt: skip
def test_options_may_follow_keys(words, capsys):
    assert main(["train", "--config-file", "configs/quickstart.yaml", *words]) == 1
    assert "there is no key SOLVER.BASE_LRR" in capsys.readouterr().err


def test_an_option_that_is_gone_says_what_to_write(capsys):
    with pytest.raises(SystemExit) as error:
        main([*COMMANDS["predict"], "--set", "TEST.PRECISION", "bfloat16"])
    assert error.value.code == 2 and "write KEY=VALUE" in capsys.readouterr().err


def test_home_folders_and_variables_are_expanded_wherever_a_path_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("DATA", "/data")
    assert expand_path("~/x") == str(tmp_path / "x") and expand_path("$DATA/x") == expand_path("${DATA}/x") == "/data/x"
    (tmp_path / "base.yaml").write_text("SEED: 7\n")
    (tmp_path / "c.yaml").write_text(
        "_BASE_: $HOME/base.yaml\nOUTPUT_DIR: ~/out\nDATASETS:\n  VAL_JSON: $DATA/v.json\n"
    )
    cfg = load_config("~/c.yaml", ["MODEL.WEIGHTS", "~/w.pth"])
    assert cfg.SEED == 7 and str(tmp_path / "out") == cfg.OUTPUT_DIR and cfg.DATASETS.VAL_JSON == "/data/v.json"
    assert str(tmp_path / "w.pth") == cfg.MODEL.WEIGHTS
    cfg.DATASETS.TRAIN_IMAGES = "~/images"
    expand_paths(cfg)
    assert str(tmp_path / "images") == cfg.DATASETS.TRAIN_IMAGES
    with pytest.raises(Exception, match=str(tmp_path / "w.pth")):
        read_weights("~/w.pth")


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR \$NOWHERE/x names the environment variable \$NOWHERE, which"):
        load_config(None, ["OUTPUT_DIR", "$NOWHERE/x"])
    with pytest.raises(ConfigError, match="home folder of a user that there is not"):
        expand_path("~nobody-of-this-name/x")


def test_options_of_commands_are_expanded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["check-data", "--json=~/none.json", "--images=~"]) == 1
    assert f"{tmp_path}/none.json" in capsys.readouterr().err and not (tmp_path / "~").exists()
