"""Configs: safe, checked key by key, the shipped ones whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from fvcore.common.config import CfgNode

from se_det.config import get_cfg, load_config
from se_det.config.defaults import DETECTRON2_ONLY, add_se_det_config
from se_det.detection import build_detector
from se_det.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BY_NAME = ("senet154", "se_bn_inception", "regnety_400mf", "regnety_4gf")  # MODEL.BACKBONE.NAME is the model


def write(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# SOLVER.MAX_ITER and STEPS by the end of a config's name. Detectron2's new baselines divide the rate after 88.9 % and
# 96.3 % of the steps, of which 100 epochs have 184375.
SCHEDULES = {
    "": (90000, (60000, 80000)),
    "adamw": (90000, (60000, 80000)),
    "3x": (270000, (210000, 250000)),
    "lsj_100ep": (184375, (163889, 177546)),
    "lsj_400ep": (4 * 184375, (4 * 163889, 4 * 177546)),
}


def test_every_promised_config_is_there():
    expected = {
        f"{kind}_rcnn_{gate}{host}_fpn{schedule}.yaml"
        for kind in ("faster", "mask")
        for gate in ("", "se_", "sp_se_", "rg_se_", "cbam_")
        for host in ("r50", "r101", "x50", "x101")
        for schedule in (("", "_3x") if host in ("r50", "r101") else ("",))
    }
    expected |= {f"{kind}_rcnn_se_{host}_fpn.yaml" for kind in ("faster", "mask") for host in ("r18", "r34")}
    expected |= {"quickstart.yaml", "starter.yaml", "starter_pretraining.yaml"}
    expected |= {f"{kind}_rcnn_{host}_fpn.yaml" for kind in ("faster", "mask") for host in BY_NAME[:2]}
    expected |= {"faster_rcnn_regnety_400mf_fpn.yaml", "mask_rcnn_regnety_4gf_fpn_lsj_100ep.yaml"}
    expected |= {f"mask_rcnn_{gate}_r50_fpn_lsj_{epochs}ep.yaml" for gate in ("se", "rg_se") for epochs in (100, 400)}
    expected.add("mask_rcnn_se_r50_fpn_adamw.yaml")
    assert expected <= {p.name for p in CONFIGS.glob("*.yaml")}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[bfm]a*_rcnn_*fpn*.yaml")), ids=lambda p: p.stem)
def test_a_config_builds_what_its_name_says(path):
    cfg = load_config(path)
    if not path.stem.startswith(("faster", "mask")) or "_fpn" not in path.stem:
        return
    name, schedule = re.fullmatch(r"(.*_fpn)_?(.*)", path.stem).groups()
    kind, _, *gate, host, _ = name.split("_")
    assert (kind == "mask") == cfg.MODEL.MASK_ON
    with torch.device("meta"):
        build_detector(cfg)
    by_name = name.removeprefix(f"{kind}_rcnn_").removesuffix("_fpn")
    if by_name in BY_NAME:
        assert by_name == cfg.MODEL.BACKBONE.NAME
        return
    assert ("_".join(gate) or "none") == cfg.MODEL.GATE.NAME
    groups = (32, 4) if host.startswith("x") else (1, 64)
    assert groups == (cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP)
    assert int(host[1:]) == cfg.MODEL.RESNETS.DEPTH
    steps = SCHEDULES[schedule]
    assert steps == (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS)


OTHERS = {"retinanet": "RetinaNet", "fcos": "FCOS", "rpn": "ProposalNetwork", "faster": "GeneralizedRCNN"}


@pytest.mark.parametrize(
    "path",
    sorted(
        p for pattern in ("retinanet*", "fcos*", "rpn*", "*_c4*", "*_dc5*") for p in CONFIGS.glob(f"{pattern}.yaml")
    ),
    ids=lambda p: p.stem,
)
def test_another_detectors_config_builds_what_its_name_says(path):
    cfg = load_config(path)
    kind, *gate, host, _ = path.stem.replace("_rcnn", "").split("_")
    assert OTHERS[kind] == cfg.MODEL.META_ARCHITECTURE and ("_".join(gate) or "none") == cfg.MODEL.GATE.NAME
    assert int(host[1:]) == cfg.MODEL.RESNETS.DEPTH and cfg.MODEL.WEIGHTS.startswith("zoo://")
    with torch.device("meta"):
        build_detector(cfg)


def test_a_shipped_config_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/faster_rcnn_se_r50_fpn.yaml").MODEL.GATE.NAME == "se"
    assert load_config("faster_rcnn_se_r50_fpn.yaml").MODEL.GATE.NAME == "se"
    with pytest.raises(ConfigError, match="Did you mean 'faster_rcnn_se_r50_fpn.yaml'"):
        load_config("configs/faster_rcnn_se_r50_fnp.yaml")


def test_bases_are_laid_under(tmp_path):
    write(tmp_path, "SOLVER: {MAX_ITER: 5, BASE_LR: 1}\nSEED: 3", "a.yaml")
    cfg = load_config(write(tmp_path, "_BASE_: a.yaml\nSOLVER: {MAX_ITER: 7}"), ["SOLVER.BASE_LR", "1e-4"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SEED) == (7, 1e-4, 3)
    write(tmp_path, "_BASE_: c.yaml", "b.yaml")
    with pytest.raises(ConfigError, match="circle"):
        load_config(write(tmp_path, "_BASE_: b.yaml", "c.yaml"))
    with pytest.raises(ConfigError, match=r"my.yaml: _BASE_ names .*absent.yaml, which does not exist"):
        load_config(write(tmp_path, "_BASE_: absent.yaml"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("SOLVER: {BASE_LRR: 1}", r"my.yaml: there is no key SOLVER.BASE_LRR. Did you mean 'SOLVER.BASE_LR'"),
        ("SOLVR: {BASE_LR: 1}", "there is no key SOLVR"),
        ("SOLVER: 3", "SOLVER is a section"),
        ("SOLVER: {BASE_LR: fast}", "SOLVER.BASE_LR must be a float, got 'fast'"),
        ("SOLVER: {MAX_ITER: 1.5}", "SOLVER.MAX_ITER must be a int, got 1.5"),
        ("SOLVER: {MAX_ITER: True}", "SOLVER.MAX_ITER must be a int, got True"),
        ("MODEL: {MASK_ON: 1}", "MODEL.MASK_ON must be a bool, got 1"),
        ("DATASETS: {TRAIN: 5}", "DATASETS.TRAIN must be a tuple"),
        ("SEED: 1\nSEED: 2", "key 'SEED' is used twice"),
        ("- 1", "must hold a mapping"),
        ("a: [", "is not valid YAML"),
        ("SEED: !!python/object/apply:os.system ['touch {marker}']", "Only plain values are read"),
        ("VIS_PERIOD: 20", "VIS_PERIOD is a key of Detectron2's"),
        ("MODEL: {ANCHOR_GENERATOR: {ANGLES: 5}}", "MODEL.ANCHOR_GENERATOR.ANGLES is a key of Detectron2's"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    marker = tmp_path / "executed"
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text.replace("{marker}", str(marker))))
    assert not marker.exists()


def test_overrides():
    cfg = load_config(None, ["INPUT.MIN_SIZE_TRAIN", "(320,)", "MODEL.WEIGHTS", "", "SOLVER.BASE_LR", 1])
    assert cfg.INPUT.MIN_SIZE_TRAIN == (320,) and cfg.MODEL.WEIGHTS == "" and cfg.SOLVER.BASE_LR == 1.0
    assert load_config(None, ["SOLVER.WEIGHT_DECAY_BIAS", "0"]).SOLVER.WEIGHT_DECAY_BIAS == 0.0
    with pytest.raises(ConfigError, match="the command line: there is no key SOLVER.LR"):
        load_config(None, ["SOLVER.LR", 1])
    with pytest.raises(ConfigError, match="'SOLVER.BASE_LR' has no value"):
        load_config(None, ["SOLVER.BASE_LR"])


@pytest.mark.parametrize("path", [*CONFIGS.glob("*_lsj_*.yaml"), *CONFIGS.glob("*_adamw.yaml")], ids=lambda p: p.stem)
def test_a_recipe_says_what_it_is_and_what_its_figures_are(path):
    first, *others = path.read_text().splitlines()[:3]
    assert first.startswith("# ") and all(line.startswith("# ") for line in others)
    assert "AP" in others[0] and re.search(r"Detectron2's|mmdetection's", others[0])
    assert "Costs" in others[1] and "steps" in others[1]


def test_the_recipe_from_scratch_is_detectron2s():
    """configs/new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py, whose values were read by hand."""
    cfg = load_config("configs/mask_rcnn_se_r50_fpn_lsj_100ep.yaml")
    solver, model = cfg.SOLVER, cfg.MODEL
    assert (solver.IMS_PER_BATCH, solver.REFERENCE_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (64, 64, 0.1, 4e-5)
    assert (solver.WARMUP_FACTOR, solver.WARMUP_ITERS, solver.GAMMA, solver.MOMENTUM) == (0.067, 500, 0.1, 0.9)
    assert solver.AMP.ENABLED and solver.FP16_COMPRESSION and solver.WEIGHT_DECAY_NORM == 0
    norms = [model[part].NORM for part in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")]
    assert norms == ["SyncBN"] * 4 and model.BACKBONE.FREEZE_AT == 0
    assert (model.RPN.CONV_DIMS, model.ROI_BOX_HEAD.NUM_CONV, model.ROI_BOX_HEAD.CONV_DIM) == ([-1, -1], 4, 256)
    assert (model.ROI_BOX_HEAD.NUM_FC, model.ROI_BOX_HEAD.FC_DIM) == (1, 1024)
    jitter, flip = cfg.INPUT.AUGMENTATIONS
    assert jitter == {"name": "LargeScaleJitter", "size": 1024, "min_scale": 0.1, "max_scale": 2.0}
    assert flip == {"name": "RandomFlip"} and cfg.INPUT.RANDOM_FLIP == "horizontal"


def test_no_key_is_both_ours_and_only_detectron2s():
    keys = get_cfg()
    for key in DETECTRON2_ONLY:
        node, *parts = keys, *key.split(".")
        while parts and parts[0] in node:
            node = node[parts.pop(0)]
        assert parts, key


def test_names_that_stand_for_others_do_not_grow_without_end(tmp_path):
    """Ten values of ten values of ...: a billion in a few hundred bytes; and one that holds itself."""
    lines = "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefghi", "bcdefghij"))
    for text in ("a: &a [1]\n" + lines, "MODEL: &a {GATE: *a}"):
        with pytest.raises(ConfigError, match="holds more than 100000 values"):
            load_config(write(tmp_path, text))
    for text in ("SEED: 2001-99-99", "SEED: !!timestamp x", "SEED: !!set [a]", f"SEED: {'1' * 5000}"):
        with pytest.raises(ConfigError, match="my.yaml"):
            load_config(write(tmp_path, text))


def test_our_sections_are_of_the_class_of_the_config_they_are_put_into():
    """Detectron2's own configs merge a section only into one of their own class."""

    class Other(CfgNode):
        pass

    model = Other({name: Other() for name in ("RESNETS", "ROI_HEADS", "FPN", "ANCHOR_GENERATOR", "RETINANET")})
    cfg = Other({"MODEL": model, "SOLVER": Other({"AMP": Other()})})
    for name in ("DATASETS", "DATALOADER", "INPUT", "TEST"):
        cfg[name] = Other()
    cfg.INPUT.CROP = Other()
    add_se_det_config(cfg)
    waiting = [cfg]
    while waiting:
        node = waiting.pop()
        assert type(node) is Other
        waiting += [value for value in node.values() if isinstance(value, CfgNode)]
