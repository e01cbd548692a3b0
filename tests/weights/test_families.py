"""Families are found by their keys, convert there and back, and are not taken for one another."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from family_cases import CAFFE, CAFFE_NEXT, as_file, drawn, with_random_statistics

from se_det.backbones import create_backbone, create_model
from se_det.cli.main import run_command
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.errors import WeightsError
from se_det.weights import identify, load_weights, read_weights
from se_det.weights.conversion import architecture_of, convert
from se_det.weights.families import FAMILIES
from se_det.weights.families.class_order import read_class_order

# A model that each family has, small where there is a small one.
MODELS = {
    "caffe": "se_resnet50",
    "matconvnet": "se_resnext50_32x4d",
    "cadene": "se_resnet50",
    "timm_legacy": "se_resnet18",
    "timm": "se_resnet34",
    "mmpretrain": "se_resnet50",
    "pytorchinsight": "se_resnet18",
    "sp_rg": "sp_se_resnet50",
    "torchvision": "resnet18",
    "detectron2": "resnet18",
    "caffe2": "resnet50",
    "detectron2_regnet": "regnety_400mf",
    "torchvision_regnet": "regnetx_400mf",
    "se_det": "rg_se_resnet18",
}


def options_of(name: str, **options) -> dict:
    """Arguments that make a model of few channels, whose keys are those of the large one."""
    if "regnet" in name:
        return {"depth": 4, "w_0": 8, "w_a": 8, "w_m": 1.3, "group_width": 8, **options}
    basic = name.endswith(("18", "34"))
    width = 1 if "resnext" in name else 64 if basic else 4 if name == "senet154" else 16
    return {"stem_channels": 16, "res2_channels": 16 if basic else 64, "width_per_group": width, **options}


def small(name: str, **options):
    return create_backbone(name, **options_of(name, **options))


def small_classifier(name: str, num_classes: int = 1000, **options):
    return create_model(name, num_classes=num_classes, **options_of(name, **options))


@pytest.fixture
def standard_order(tmp_path) -> Path:
    """Synsets in the standard order, so that nothing moves."""
    path = tmp_path / "order.txt"
    path.write_text("".join(f"n{k:08d} a name\n" for k in range(1000)))
    return path


def test_every_family_has_a_case():
    assert MODELS.keys() == {name for name, family in FAMILIES.items() if family.detector is None}


@pytest.mark.parametrize("name", list(MODELS))
def test_there_and_back(name, standard_order):
    shapes = {key: tensor.shape for key, tensor in small_classifier(MODELS[name]).state_dict().items()}
    ours = {key.removeprefix("trunk."): tensor for key, tensor in drawn(shapes, seed=5).items()}
    order = standard_order if name in ("caffe", "matconvnet") else None
    theirs = convert(as_file(ours), to=name, class_order=order)
    extra = {"__author__": "se_det"} if name == "detectron2" else {}
    file = as_file(theirs.tensors, **extra)
    assert identify(file).family == name
    back = convert(file, class_order=order)
    assert not back.dropped
    counters = {key for key in ours if key.endswith("num_batches_tracked")}
    assert set(back.tensors) | counters == set(ours)
    for key, tensor in back.tensors.items():
        if name == "matconvnet" and key.endswith("running_var"):  # its square root is what is kept
            torch.testing.assert_close(tensor, ours[key], rtol=3e-7, atol=1e-11)
        else:
            assert torch.equal(tensor, ours[key]), key
    again = convert(as_file(back.tensors), to=name, class_order=order)
    assert again.tensors.keys() <= theirs.tensors.keys()
    for key, tensor in again.tensors.items():
        if name == "matconvnet" and key.endswith("moments"):
            torch.testing.assert_close(tensor, theirs.tensors[key], rtol=2e-7, atol=0)
        else:
            assert torch.equal(tensor, theirs.tensors[key]), key


def config_keys(name: str) -> dict[str, torch.Tensor]:
    """The tensors of a file of the family, with initial values; without a classifier where classes have their order."""
    return convert(as_file(small_classifier(MODELS[name]).state_dict()), to=name).tensors


def test_a_file_of_one_family_is_refused_as_another():
    files = {name: as_file(config_keys(name)) for name in MODELS}
    refused = 0
    for name, file in files.items():
        for other, family in FAMILIES.items():
            same_layout = {name, other} <= {"detectron2", "se_det"} or {name, other} <= {"cadene", "timm_legacy"}
            if other == name or same_layout or name in family.like:
                assert identify(file, other).family in (name, "se_det", "detectron2", other)
                continue
            with pytest.raises(WeightsError, match=rf"theirs.pth is not of the family {other} .*its keys are those of"):
                identify(file, other)
            refused += 1
    assert refused > 100
    with pytest.raises(WeightsError, match=r"no family 'cadenne' of weights.*Did you mean 'cadene'"):
        identify(files["timm"], "cadenne")
    with pytest.raises(WeightsError, match=r"keys of several families: .*--family (cadene|timm)"):
        identify(as_file({**files["timm"].tensors, **files["mmpretrain"].tensors}))


def test_stride_and_stem_pooling_are_caught():
    legacy = as_file(config_keys("cadene"), "se_resnet50.pth")
    with pytest.raises(
        WeightsError,
        match=r"se_resnet50.pth \(cadene\) would load, and every feature would be wrong: set "
        r"MODEL.RESNETS.STRIDE_IN_1X1 True \(it is False\) and MODEL.RESNETS.STEM_POOL ceil \(it is pad1\)",
    ):
        load_weights(small("se_resnet50"), legacy)
    modern = as_file(config_keys("timm"))
    with pytest.raises(WeightsError, match=r"set MODEL.RESNETS.STEM_POOL pad1 \(it is ceil\)"):
        load_weights(small("se_resnet34", stem_pool="ceil"), modern)
    basic = as_file(config_keys("timm_legacy"))
    with pytest.raises(WeightsError, match=r"set MODEL.RESNETS.BRANCH_RELU True \(it is False\)"):
        load_weights(small("se_resnet18", stem_pool="ceil"), basic)
    assert not load_weights(small("se_resnet50", **CAFFE), legacy).missing


def test_the_stride_follows_the_groups():
    expected = {"se_resnet50": True, "se_resnext50_32x4d": False, "senet154": False}
    for name, stride in expected.items():
        with torch.device("meta"):
            state = small(name).state_dict()
        ours = {k: torch.zeros(v.shape) for k, v in state.items() if k.startswith(("stem", "res2."))}
        for family in ("caffe", "matconvnet", "cadene"):
            facts = identify(as_file(convert(as_file(ours), to=family).tensors)).facts
            assert facts.stride_in_1x1 is stride and facts.stem_pool == "ceil"


def test_families_know_their_images():
    caffe = identify(as_file(config_keys("caffe")))
    assert caffe.facts.input_format == "BGR" and caffe.facts.pixel_mean == (104.0, 117.0, 123.0)
    assert identify(as_file(config_keys("matconvnet"))).facts.input_format == "RGB"


def test_caffes_factor_and_matconvnets_kernels():
    """Worked by hand: what the two programs compute from the numbers of a file."""
    theirs = config_keys("caffe")
    theirs["conv1/7x7_s2/bn.0"], theirs["conv1/7x7_s2/bn.1"] = torch.full((16,), 30.0), torch.full((16,), 90.0)
    theirs["conv1/7x7_s2/bn.2"] = torch.tensor([10.0])
    ours = identify(as_file(theirs)).tensors
    assert ours["stem.conv1.norm.running_mean"].unique().tolist() == [3.0]
    assert ours["stem.conv1.norm.running_var"].unique().tolist() == [9.0]
    with pytest.raises(WeightsError, match=r"conv1/7x7_s2/bn.2 must be one number other than 0"):
        identify(as_file({**theirs, "conv1/7x7_s2/bn.2": torch.zeros(1)}))
    ported = config_keys("matconvnet")
    kernel = torch.arange(7 * 7 * 3 * 16.0).reshape(7, 7, 3, 16)
    ported["conv1_7x7_s2_filter"] = kernel
    ported["conv1_7x7_s2_bn_moments"] = torch.tensor([[3.0, 2.0]]).repeat(16, 1)
    for key, value in (("bn_mult", 5.0), ("bn_bias", 7.0), ("bn_scale_mult", 2.0), ("bn_scale_bias", 1.0)):
        ported[f"conv1_7x7_s2_{key}"] = torch.full_like(ported[f"conv1_7x7_s2_{key}"], value)
    ours = identify(as_file(ported)).tensors
    assert ours["stem.conv1.weight"][11, 2, 5, 6] == kernel[5, 6, 2, 11]
    norm = {key: ours[f"stem.conv1.norm.{key}"][0].item() for key in ("weight", "bias", "running_mean", "running_var")}
    # ((x - 3) / 2 * 5 + 7) * 2 + 1 = (x - 3) / 2 * 10 + 15
    assert norm == pytest.approx({"weight": 10.0, "bias": 15.0, "running_mean": 3.0, "running_var": 4 - 1e-5})


def test_classes_come_out_in_the_standard_order(tmp_path):
    random = np.random.RandomState(0)
    synsets = [f"n{number:08d}" for number in sorted(random.choice(10**8, 1000, replace=False))]
    places = random.permutation(1000)  # class k of the file is the synset places[k]
    listed, label_map = tmp_path / "synsets.txt", tmp_path / "label_map.txt"
    listed.write_text("\n".join(f"{synsets[place]} some name" for place in places))
    label_map.write_text("\n".join(str(where + 1) for where in np.argsort(places)))
    theirs = config_keys("caffe")
    theirs["classifier.0"] = torch.from_numpy(places.astype(np.float32))[:, None].repeat(1, 512)
    theirs["classifier.1"] = torch.from_numpy(places.astype(np.float32))
    for order in (listed, label_map):
        model = small_classifier("se_resnet50", **CAFFE)
        report = load_weights(model, as_file(theirs), class_order=order)
        assert not report.missing
        assert torch.equal(model.linear.bias.detach(), torch.arange(1000.0))
        assert torch.equal(model.linear.weight[:, 5].detach(), torch.arange(1000.0))
        back = convert(identify(as_file(theirs), class_order=order), to="caffe", class_order=order)
        assert torch.equal(back.tensors["classifier.1"], theirs["classifier.1"])
    with pytest.raises(WeightsError, match=r"1000 classes in the order of the SENet authors.*--class-order FILE"):
        load_weights(small_classifier("se_resnet50", **CAFFE), as_file(theirs))
    report = load_weights(small("se_resnet50", **CAFFE), as_file(theirs))
    assert not report.missing and "The file's classifier is left out" in report.summary()
    report = load_weights(small_classifier("se_resnet50", num_classes=7, **CAFFE), as_file(theirs))
    assert report.missing == ["linear.weight", "linear.bias"]
    with pytest.raises(WeightsError, match="give no class order"):
        identify(as_file(config_keys("timm")), class_order=listed)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "is empty"),
        ("cat\n", "it has 'cat'"),
        ("n00000001\nn00000001\n", "a synset twice"),
        ("1\n3\n", "every number"),
    ],
)
def test_bad_class_orders(text, wanted, tmp_path):
    path = tmp_path / "order.txt"
    path.write_text(text)
    with pytest.raises(WeightsError, match=wanted):
        read_class_order(path)
    with pytest.raises(WeightsError, match=r"absent.txt cannot be read"):
        read_class_order(tmp_path / "absent.txt")


@pytest.mark.slow
def test_msras_file_under_caffe2s_names(tmp_path):
    """The keys of R-50.pkl, as published logs of loading it list them."""
    source = with_random_statistics(create_model("resnet50", stride_in_1x1=True))
    arrays = {k: v.numpy() for k, v in convert(as_file(source.state_dict()), to="caffe2").tensors.items()}
    assert {
        "conv1_w",
        "res_conv1_bn_gamma",
        "res2_0_branch1_bn_running_var",
        "res5_2_branch2c_bn_beta",
        "fc1000_b",
    } < set(arrays)
    arrays["conv1_b"] = np.zeros(64, np.float32)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol=2))
    file = identify(path, "detectron2")
    assert file.family == "caffe2" and file.facts.stride_in_1x1 and file.facts.pixel_std == (1.0, 1.0, 1.0)
    options = ["MODEL.GATE.NAME", "se", "MODEL.BACKBONE.FREEZE_AT", 2, "MODEL.RESNETS.STRIDE_IN_1X1", True]
    cfg = load_config("configs/faster_rcnn_r50_fpn.yaml", [*options, "MODEL.RESNETS.STEM_POOL", "pad1"])
    detector = build_detector(cfg)
    report = load_weights(detector, path)
    assert (len(report.fresh_gates) == 16 and report.unexpected == ["conv1_b"]) or "conv1_b" in report.unexpected
    trunk = detector.backbone.bottom_up
    assert all(p.requires_grad for block in trunk.blocks() for p in block.gate.parameters())
    assert not trunk.res2[0].conv1.weight.requires_grad
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected, found = source.eval().trunk(x)["res5"], trunk.eval()(x)["res5"]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_plain_torchvision_weights_start_a_gated_detector():
    torchvision = pytest.importorskip("torchvision")
    plain = with_random_statistics(torchvision.models.resnet18())
    options = ["MODEL.RESNETS.NORM", "FrozenBN", "MODEL.BACKBONE.FREEZE_AT", 2]
    detector = build_detector(load_config("configs/faster_rcnn_se_r18_fpn.yaml", options))
    report = load_weights(detector, as_file(plain.state_dict(), "r18.pth"))
    assert len(report.fresh_gates) == 8 and report.unexpected == ["linear.weight", "linear.bias"]
    assert "which are trained from initial values" in report.summary()
    trunk = detector.backbone.bottom_up.eval()
    assert all(p.requires_grad for block in trunk.blocks() for p in block.gate.parameters())
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected = plain.layer4(
            plain.layer3(plain.layer2(plain.layer1(plain.maxpool(plain.relu(plain.bn1(plain.conv1(x)))))))
        )
        found = trunk(x)["res5"]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_what_no_network_here_has_is_refused():
    timm = config_keys("timm")
    shortcut = {
        k.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1"): v for k, v in timm.items()
    }
    with pytest.raises(WeightsError, match=r"shortcuts with an average pooling \(ResNet-D\)"):
        load_weights(small("se_resnet34"), as_file(shortcut))
    stranger = {**timm, "layer1.0.attn.conv.weight": torch.zeros(1, 1, 5)}
    with pytest.raises(WeightsError, match=r"no place for: layer1.0.attn.conv.weight"):
        load_weights(small("se_resnet34"), as_file(stranger))
    with pytest.raises(WeightsError, match=r"no place for: .*gate.fc1.weight.*MODEL.GATE"):
        load_weights(small("resnet34"), as_file(timm))
    assert load_weights(small("resnet34"), as_file(timm), allow_partial=True).unexpected


def test_another_reduction_is_not_a_rounded_width():
    weights = small("se_resnet18", reduction=8).state_dict()
    with pytest.raises(WeightsError, match=r"another hidden width: set MODEL.GATE.REDUCTION 8"):
        load_weights(small("se_resnet18", reduction=4), as_file(weights))


def test_converted_files_keep_their_facts(tmp_path, capsys):
    theirs = tmp_path / "theirs.pth"
    torch.save({"state_dict": config_keys("cadene")}, theirs)
    for target in ("ours.safetensors", "ours.pth"):
        assert run_command("convert-weights", [str(theirs), str(tmp_path / target)]) == 0
        file = identify(tmp_path / target)
        assert file.family == "se_det" and file.facts.stride_in_1x1 and file.facts.stem_pool == "ceil"
        with pytest.raises(WeightsError, match=r"STRIDE_IN_1X1 True"):
            load_weights(small("se_resnet50"), tmp_path / target)
        assert not load_weights(small_classifier("se_resnet50", **CAFFE), tmp_path / target).missing
        back = tmp_path / f"back{Path(target).suffix}"
        assert run_command("convert-weights", [str(tmp_path / target), str(back), "--to", "cadene"]) == 0
        assert read_weights(back).tensors.keys() == read_weights(theirs).tensors.keys()
    content = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert content["network"] == "" and content["origin"] == "cadene"  # not of the catalog, so few are its channels
    json.dumps(content["facts"])


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["a.pth", "b.onnx"], "b.onnx has an unknown ending"),
        (["a.pth", "b.pth", "--to", "timm"], "cannot become a file of timm: .*stride_in_1x1 True and not False"),
        (["a.pth", "b.pth", "--to", "torchvision"], "cannot become a file of torchvision"),
        (["a.pth", "b.pth", "--family", "timm"], "a.pth is not of the family timm .*those of cadene"),
        (["absent.pth", "b.pth"], "There is no weight file absent.pth"),
        (["a.pth", "b.pth", "--class-order", "a.pth"], "give no class order"),
    ],
)
def test_conversions_that_are_refused(arguments, wanted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(config_keys("cadene"), "a.pth")
    assert run_command("convert-weights", arguments) == 1
    assert re.search(wanted, capsys.readouterr().err)
    assert not Path("b.pth").exists()


def test_grouped_legacy_weights_in_a_caffe_network():
    file = as_file(config_keys("matconvnet"))
    assert not load_weights(small("se_resnext50_32x4d", **CAFFE_NEXT), file).missing


def test_a_checkpoint_of_ours_says_what_it_needs():
    cfg = load_config("configs/faster_rcnn_se_r50_fpn.yaml", ["MODEL.RESNETS.STRIDE_IN_1X1", True])
    state = small("se_resnet50", stride_in_1x1=True).state_dict()
    file = as_file(state, config=cfg.dump())
    with pytest.raises(WeightsError, match=r"set MODEL.RESNETS.STRIDE_IN_1X1 True \(it is False\)"):
        load_weights(small("se_resnet50", stem_pool=cfg.MODEL.RESNETS.STEM_POOL), file)
    facts = identify(file).facts
    assert (facts.input_format, list(facts.pixel_mean)) == (cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN)


@pytest.mark.parametrize("name", ["se_resnet18", "resnet50", "sp_se_resnet18", "rg_se_resnet18"])
def test_the_architecture_is_recognised(name):
    assert architecture_of(create_backbone(name).state_dict()) == name


@pytest.mark.parametrize("name", ["caffe", "matconvnet"])
def test_se_bn_inception_there_and_back(name):
    shapes = {key: tensor.shape for key, tensor in create_backbone("se_bn_inception").state_dict().items()}
    ours = drawn(shapes, seed=6)
    theirs = convert(as_file(ours), to=name).tensors
    assert {"caffe": "inception_4e/double3x3b.0", "matconvnet": "inception_4e_double3x3b_filter"}[name] in theirs
    assert {"caffe": "inception_3a_1x1_up.1", "matconvnet": "inception_3a_1x1_up_bias"}[name] in theirs
    report = load_weights(create_backbone("se_bn_inception"), as_file(theirs))
    assert not report.missing and not report.unexpected
    assert identify(as_file(theirs)).tensors["res4.inception_4d.3x3.weight"].equal(ours["res4.inception_4d.3x3.weight"])
