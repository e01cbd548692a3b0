"""What weights need is set before the network is built, or refused by the key's name."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil
from pathlib import Path

import pytest
import torch

import se_det
from se_det.backbones import create_model as random_model
from se_det.config import get_cfg, load_config
from se_det.config.loading import get_key
from se_det.config.provenance import key_source
from se_det.config.resolution import Resolution
from se_det.detection import build_detector
from se_det.errors import ConfigError, WeightsError
from se_det.inference import Predictor
from se_det.training.config_checks import check_training
from se_det.weights import get_entry, load_weights, open_configured_weights, resolve_weights, saved_decisions

BGR = {"format": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = {"stem.conv1.weight": torch.zeros(1)}  # to settle, a file only has to be readable
# MSRA's: all five keys differ from the shipped configs'.
NEEDED = {
    "MODEL.RESNETS.STRIDE_IN_1X1": True, "MODEL.RESNETS.STEM_POOL": "ceil", "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675], "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
}  # fmt: skip
SHIPPED = {
    "MODEL.RESNETS.STRIDE_IN_1X1": False, "MODEL.RESNETS.STEM_POOL": "pad1", "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53], "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
}  # fmt: skip
ZOO = ("MODEL.WEIGHTS", "zoo://se_resnet50.test")


def apply(cfg, *, trained: bool = False):
    """The file of cfg.MODEL.WEIGHTS, what it decides set in `cfg`."""
    stage = Resolution(cfg)
    stage.cfg = cfg
    file, decisions = open_configured_weights(cfg, trained=trained)
    stage.decide(decisions)
    return file


@pytest.fixture
def caffe(add_entry):
    return add_entry("se_resnet50.test", TINY, stride=True, pool="ceil", image=BGR)


def config(*overrides, name: str = "faster_rcnn_se_r50_fpn.yaml"):
    return load_config(CONFIGS / name, overrides)


def values(cfg) -> dict:
    return {key: get_key(cfg, key) for key in NEEDED}


def test_an_entry_sets_the_keys_that_nobody_chose(caffe, caplog):
    cfg = config(*ZOO)
    assert values(cfg) == SHIPPED
    with caplog.at_level(logging.INFO):
        file = apply(cfg)
    assert values(cfg) == NEEDED and file.path.name == caffe
    told = [r.message for r in caplog.records if " sets " in r.message]
    assert len(told) == 1 and told[0].startswith("zoo://se_resnet50.test sets MODEL.RESNETS.STRIDE_IN_1X1 True (was Fa")
    assert all(key in told[0] for key in NEEDED)
    apply(cfg)  # once more changes nothing
    assert values(cfg) == NEEDED


@pytest.mark.parametrize("key", NEEDED)
def test_a_key_said_otherwise_is_refused_by_its_name(caffe, key, add_entry):
    cfg = config(*ZOO, key, SHIPPED[key])
    with pytest.raises(ConfigError, match=rf"zoo://se_resnet50.test do not fit .*: {key} is .* \(the command line\), "):
        apply(cfg)
    assert values(cfg) == SHIPPED and add_entry.server.requests == []  # before anything is fetched
    agreed = config(*ZOO, key, NEEDED[key])
    apply(agreed)
    assert values(agreed) == NEEDED


def test_a_users_file_is_named(caffe, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"_BASE_: {CONFIGS}/faster_rcnn_se_r50_fpn.yaml\nINPUT: {{FORMAT: RGB}}\n")
    with pytest.raises(ConfigError, match=r"INPUT.FORMAT is RGB \(.*mine.yaml\), and they need BGR"):
        apply(load_config(mine, ZOO))
    mine.write_text(f"_BASE_: {CONFIGS}/faster_rcnn_se_r50_fpn.yaml\nMODEL: {{WEIGHTS: 'zoo://se_resnet50.test'}}\n")
    cfg = load_config(mine)
    apply(cfg)
    assert values(cfg) == NEEDED


def test_a_value_given_in_code_counts(caffe):
    cfg = config(*ZOO)
    cfg.INPUT.FORMAT = "RGB"  # what it was: it leaves no trace
    cfg.MODEL.PIXEL_STD = [57.0, 57.0, 57.0]
    with pytest.raises(ConfigError, match=r"MODEL.PIXEL_STD is \[57.0, 57.0, 57.0\] \(code\)"):
        apply(cfg)


def test_a_copy_of_the_shipped_configs_is_no_choice_until_it_is_changed(caffe, tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "copies")
    cfg = load_config(tmp_path / "copies" / "faster_rcnn_se_r50_fpn.yaml", ZOO)
    apply(cfg)
    assert values(cfg) == NEEDED
    base = tmp_path / "copies" / "base_rcnn_fpn.yaml"
    base.write_text(base.read_text().replace("[58.395, 57.12, 57.375]", "[58.0, 57.0, 57.0]"))
    with pytest.raises(ConfigError, match=r"MODEL.PIXEL_STD is \[58.0, 57.0, 57.0\] \(.*copies/base_rcnn_fpn.yaml\)"):
        apply(load_config(tmp_path / "copies" / "faster_rcnn_se_r50_fpn.yaml", ZOO))


def test_copies_and_pickles_of_a_config_remember(caffe):
    cfg = config(*ZOO, "INPUT.FORMAT", "RGB")
    cfg.freeze()
    for other in (cfg.clone(), copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg))):
        assert key_source(other, "INPUT.FORMAT") == "the command line" and key_source(other, "MODEL.PIXEL_MEAN") is None
    assert "set_by" not in cfg.dump()
    plain = get_cfg()
    assert key_source(plain, "INPUT.FORMAT") is None
    plain.INPUT.FORMAT = "RGB"
    assert key_source(plain, "INPUT.FORMAT") == "code"


def test_without_weights_or_knowledge_the_config_stands(add_entry, tmp_path):
    cfg = config("MODEL.WEIGHTS", "")
    assert apply(cfg) is None and values(cfg) == SHIPPED
    torch.save(TINY, tmp_path / "r50.pth")
    cfg = config("MODEL.WEIGHTS", str(tmp_path / "r50.pth"))
    apply(cfg)
    assert values(cfg) == SHIPPED


def test_a_file_brought_by_hand_is_known_by_its_name(caffe, add_entry, tmp_path):
    brought = tmp_path / caffe
    brought.write_bytes(add_entry.server.files[caffe])
    cfg = config("MODEL.WEIGHTS", str(brought))
    apply(cfg)
    assert values(cfg) == NEEDED and add_entry.server.requests == []
    assert resolve_weights(brought)[1].name == "se_resnet50.test"
    brought.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"is not the file that se_resnet50.test in the zoo names.*get it again"):
        apply(config("MODEL.WEIGHTS", str(brought)))


def test_a_url_of_an_entry_is_that_entry(caffe, add_entry):
    cfg = config("MODEL.WEIGHTS", f"{add_entry.server.url}/{caffe}")
    apply(cfg)
    assert values(cfg) == NEEDED


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("faster_rcnn_se_r101_fpn.yaml", "MODEL.RESNETS.DEPTH is 101, not 50"),
        ("faster_rcnn_se_x50_fpn.yaml", "NUM_GROUPS is 32, not 1; MODEL.RESNETS.WIDTH_PER_GROUP is 4, not 64"),
        ("faster_rcnn_r50_fpn.yaml", "MODEL.GATE.NAME is none, not se"),
    ],
)
def test_another_network_is_refused(caffe, name, message):
    with pytest.raises(ConfigError, match=message):
        apply(config(*ZOO, name=name))


def test_another_backbone_is_refused(add_entry):
    add_entry("resnet50.test", TINY)
    cfg = config("MODEL.WEIGHTS", "zoo://resnet50.test", "MODEL.BACKBONE.NAME", "timm/convnext_tiny")
    with pytest.raises(ConfigError, match="MODEL.BACKBONE.NAME is timm/convnext_tiny, not resnet50"):
        apply(cfg)


def test_other_schemes_are_refused():
    with pytest.raises(WeightsError, match=r"In the zoo that file is zoo://resnet50.msra"):
        resolve_weights("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    with pytest.raises(
        WeightsError, match="use a path, zoo://name, shipped://name, hf://org/name, or an http, https or file URL"
    ):
        resolve_weights("s3://bucket/net.pth")


def checkpoint(path: Path, **keys) -> Path:
    cfg = config(*ZOO)
    for key, value in keys.items():
        node = cfg
        *parents, last = key.split("__")
        for part in parents:
            node = node[part]
        node[last] = value
    torch.save({"model": TINY, "config": cfg.dump()}, path)
    return path


CAFFE = {"MODEL__RESNETS__STRIDE_IN_1X1": True, "MODEL__RESNETS__STEM_POOL": "ceil", "INPUT__FORMAT": "BGR",
         "MODEL__PIXEL_MEAN": [103.53, 116.28, 123.675], "MODEL__PIXEL_STD": [1.0, 1.0, 1.0]}  # fmt: skip


def test_a_checkpoint_of_ours_knows_what_it_needs(tmp_path):
    path = str(checkpoint(tmp_path / "model_final.pth", **CAFFE))
    for trained in (True, False):
        cfg = config("MODEL.WEIGHTS", path)
        apply(cfg, trained=trained)
        assert values(cfg) == NEEDED
    with pytest.raises(ConfigError, match=r"model_final.pth do not fit the config: INPUT.FORMAT is RGB"):
        apply(config("MODEL.WEIGHTS", path, "INPUT.FORMAT", "RGB"), trained=True)
    with pytest.raises(ConfigError, match="STRIDE_IN_1X1 is False"):
        apply(config("MODEL.WEIGHTS", path, "MODEL.RESNETS.STRIDE_IN_1X1", False))


def test_fine_tuning_may_feed_other_images(tmp_path):
    path = str(checkpoint(tmp_path / "m.pth", **CAFFE))
    other = {"INPUT.FORMAT": "RGB", "MODEL.PIXEL_MEAN": [100.0, 100.0, 100.0]}
    cfg = config("MODEL.WEIGHTS", path, *(x for pair in other.items() for x in pair))
    apply(cfg)
    assert values(cfg) == {**NEEDED, **other}


def test_resuming_takes_the_keys_of_the_run(tmp_path):
    saved = torch.load(checkpoint(tmp_path / "m.pth", **CAFFE), weights_only=True)["config"]
    cfg = config("INPUT.FORMAT", "RGB")
    stage = Resolution(cfg)
    stage.decide(saved_decisions(stage.cfg, saved, "model_0000001.pth"))
    cfg = stage.cfg
    assert values(cfg) == {**NEEDED, "INPUT.FORMAT": "RGB"}  # the contradiction is left to be named with all others


@pytest.mark.parametrize("gate", ["rg_se", "sp_se", "cbam"])
def test_what_nobody_published_says_what_to_do(gate):
    cfg = config(name=f"faster_rcnn_{gate}_r50_fpn.yaml")
    with pytest.raises(WeightsError) as refused:
        apply(cfg)
    told = str(refused.value)
    assert told.startswith(f"Nobody published weights of {gate}_resnet50 (MODEL.WEIGHTS zoo://{gate}_resnet50).")
    for part in ("tools/pretrain.py", "MODEL.WEIGHTS zoo://resnet50.torchvision_v1", "MODEL.GATE.NORM GN",
                 'MODEL.WEIGHTS "" MODEL.RESNETS.NORM GN (or BN) MODEL.BACKBONE.FREEZE_AT 0'):  # fmt: skip
        assert part in told
    scratch = ("MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", 0)
    check_training(config(*scratch, name=f"faster_rcnn_{gate}_r50_fpn.yaml"), 1)


@pytest.mark.parametrize("gate", ["rg_se", "sp_se"])
def test_its_advice_to_start_from_a_plain_network_works(add_entry, gate):
    torch.manual_seed(0)
    plain = random_model("resnet18", norm="FrozenBN").eval()
    add_entry("resnet18.torchvision_v1", plain.state_dict(), stride=None)
    cfg = config("MODEL.GATE.NAME", gate, "MODEL.WEIGHTS", "zoo://resnet18.torchvision_v1", "MODEL.GATE.NORM", "GN",
                 name="faster_rcnn_se_r18_fpn.yaml")  # fmt: skip
    check_training(cfg, 1)
    file = apply(cfg)
    detector = build_detector(cfg)
    report = load_weights(detector, file, gate_init=cfg.MODEL.GATE.INIT)
    assert len(report.fresh_gates) == 8
    assert all(p.requires_grad for n, p in detector.named_parameters() if ".gate." in n)
    image = torch.randn(1, 3, 64, 64)
    features = detector.backbone.bottom_up.eval()(image)["res5"]
    expected = plain.forward_features(image)
    assert torch.allclose(features, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_its_advice_to_start_from_an_se_network_works(add_entry):
    add_entry("se_resnet18.test", random_model("se_resnet18").state_dict(), stride=None)
    cfg = config("MODEL.GATE.NAME", "rg_se", "MODEL.WEIGHTS", "zoo://se_resnet18.test", "MODEL.GATE.NORM", "GN",
                 "MODEL.BACKBONE.FREEZE_AT", 0, name="faster_rcnn_se_r18_fpn.yaml")  # fmt: skip
    check_training(cfg, 1)
    detector = build_detector(cfg)
    report = load_weights(detector, apply(cfg), allow_partial=True)
    assert all(p.requires_grad for n, p in detector.named_parameters() if ".gate." in n)
    assert sum(name.startswith("backbone.bottom_up.") for name in report.loaded) > 100


def test_a_zoo_entry_is_no_trained_detector(add_entry):
    cfg = config(*ZOO[:1], "zoo://se_resnet50.cadene")
    with pytest.raises(ConfigError, match="is a pretrained backbone, and no weights of a trained detector were given"):
        apply(cfg, trained=True)
    with pytest.raises(ConfigError, match="is a pretrained backbone"):
        Predictor(config())
    with pytest.raises(ConfigError, match="No weights were given"):
        Predictor(config("MODEL.WEIGHTS", ""))


def test_create_model_builds_what_the_weights_need(add_entry):
    """Bottlenecks: the same weights in a network of another stride and pooling give other results."""
    torch.manual_seed(0)
    source = random_model("se_resnet50", stride_in_1x1=True, stem_pool="ceil").eval()
    add_entry("se_resnet50.test", source.state_dict(), stride=True, pool="ceil")
    model = se_det.create_model("se_resnet50", weights="se_resnet50.test").eval()
    image = torch.randn(1, 3, 63, 64)
    with torch.no_grad():
        assert torch.equal(model(image), source(image))
    with pytest.raises(WeightsError, match=r"are a se_resnet50's, not a se_resnet101's"):
        se_det.create_model("se_resnet101", weights="zoo://se_resnet50.test")
    with pytest.raises(WeightsError, match="every feature would be wrong: set MODEL.RESNETS.STRIDE_IN_1X1 True"):
        load_weights(random_model("se_resnet50"), "zoo://se_resnet50.test")
    with pytest.raises(ConfigError, match="There is no model 'se_resnet51'"):
        se_det.create_model("se_resnet51", weights="se_resnet50.test")


def test_create_model_without_weights_and_with_other_classes(add_entry, tmp_path):
    add_entry("se_resnet18.test", random_model("se_resnet18", stem_pool="ceil").state_dict(), stride=None, pool="ceil")
    model = se_det.create_model("se_resnet18", num_classes=5, weights="se_resnet18.test")
    assert model.linear.out_features == 5 and model.trunk.stem.ceil_mode
    with pytest.raises(WeightsError, match="every feature would be wrong: set MODEL.RESNETS.STEM_POOL ceil"):
        se_det.create_model("se_resnet18", weights="se_resnet18.test", stem_pool="pad1")
    assert se_det.create_model("se_resnet18").linear.out_features == 1000
    assert "se_resnet18.test" in se_det.list_weights("se_resnet18.*")


@pytest.mark.parametrize(
    ("timms", "name", "config_name"),
    [
        ("legacy_seresnet18", "se_resnet18.timm_legacy", "faster_rcnn_se_r18_fpn.yaml"),
        pytest.param("legacy_seresnet101", "se_resnet101.timm_legacy", "faster_rcnn_se_r101_fpn.yaml",
                     marks=pytest.mark.slow),
        pytest.param("seresnet50", "se_resnet50.timm_ra2", "faster_rcnn_se_r50_fpn.yaml", marks=pytest.mark.slow),
        pytest.param("seresnext101_32x4d", "se_resnext101_32x4d.gluon", "faster_rcnn_se_x101_fpn.yaml",
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_shipped_config_with_its_entry_computes_what_timm_does(add_entry, timms, name, config_name):
    """The entry's own facts, with a file of random weights in its place, at a size that is no multiple of 32."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(timms).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, std=0.1)
    facts, family = get_entry(name).facts, get_entry(name).family
    add_entry(name, theirs.state_dict(), stride=facts.stride_in_1x1, pool=facts.stem_pool, relu=facts.branch_relu,
              family=family)  # fmt: skip
    cfg = config(name=config_name)
    file = apply(cfg)
    detector = build_detector(cfg).eval()
    load_weights(detector, file)
    image = torch.randn(1, 3, 75, 118)
    with torch.no_grad():
        features, expected = detector.backbone.bottom_up(image)["res5"], theirs.forward_features(image)
    assert torch.allclose(features, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
