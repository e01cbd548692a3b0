"""timm's networks as trunks: maps against timm's own, freezing, norms, gates and weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from se_det.backbones import create_backbone, create_model
from se_det.backbones.gate_insertion import gated_branches
from se_det.backbones.timm_trunk import FrozenBatchNormAct2d
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.errors import ConfigError, WeightsError
from se_det.layers.norms import FrozenBatchNorm2d
from se_det.weights import load_weights

timm = pytest.importorskip("timm", reason="the adapter needs timm")

SMALL = [
    "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.FPN.OUT_CHANNELS", 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.DEVICE", "cpu",
]  # fmt: skip


def config(name: str, *overrides):
    return load_config("configs/base_rcnn_fpn.yaml", [*SMALL, "MODEL.BACKBONE.NAME", f"timm/{name}", *overrides])


def settle_norms(net: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics as if trained
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize("name", ["convnext_atto", "regnety_002", "efficientnet_b0", "test_resnet"])
def test_maps_are_timms_own_at_the_four_strides(name):
    torch.manual_seed(0)
    trunk = create_backbone(f"timm/{name}").eval()
    settle_norms(trunk)
    classifier = timm.create_model(name)
    whole = classifier.state_dict()
    own = trunk.net.state_dict()
    assert set(own) <= set(whole)  # timm's names
    classifier.load_state_dict(own, strict=False)
    # timm's other way to maps: modules run one after the other, without forward_intermediates.
    features = timm.create_model(name, features_only=True).eval()
    renamed = {k.replace(".", "_"): v for k, v in classifier.state_dict().items()}
    features.load_state_dict({k: renamed[k.replace(".", "_")] for k in features.state_dict()})
    x = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        maps, expected = trunk(x), features(x)
    by_stride = dict(zip(features.feature_info.reduction(), expected))
    for stage, stride in (("res2", 4), ("res3", 8), ("res4", 16), ("res5", 32)):
        assert trunk.strides[stage] == stride
        assert maps[stage].shape == (2, trunk.channels[stage], 96 // stride, 128 // stride)
        assert torch.equal(maps[stage], by_stride[stride])


def test_swin_takes_any_size_and_gives_maps_with_channels_first():
    torch.manual_seed(0)
    name = "swin_tiny_patch4_window7_224"
    trunk = create_backbone(f"timm/{name}").eval()
    features = timm.create_model(name, features_only=True).eval()
    flat = {k.replace(".", "_"): v for k, v in trunk.net.state_dict().items()}
    features.load_state_dict({k: flat[k.replace(".", "_")] for k in features.state_dict()})
    x = torch.randn(1, 3, 224, 224)  # the one size that timm's takes by default
    with torch.no_grad():
        for ours, theirs in zip(trunk(x).values(), features(x)):
            torch.testing.assert_close(ours, theirs.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
        shapes = [tuple(m.shape) for m in trunk(torch.randn(1, 3, 96, 160)).values()]
    assert shapes == [(1, 96, 24, 40), (1, 192, 12, 20), (1, 384, 6, 10), (1, 768, 3, 5)]


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("regnety_002", [{"s1", "s2", "s3", "s4"}, {"s2", "s3", "s4"}, {"s3", "s4"}, {"s4"}, set()]),
        ("resnet18", [{f"layer{i}" for i in range(k, 5)} for k in (1, 2, 3, 4, 5)]),
        ("convnext_atto", [{f"stages.{i}" for i in range(k, 4)} for k in range(5)]),
        # Stem and the block of stride 2; blocks.1 is stride 4; blocks.3 and 4 are both stride 16.
        ("efficientnet_b0", [{f"blocks.{i}" for i in range(k, 7)} for k in (1, 2, 3, 5, 7)]),
    ],
)
def test_freezing_goes_by_stride(name, trained):
    for freeze_at, expected in enumerate(trained, start=1):
        trunk = create_backbone(f"timm/{name}")
        trunk.freeze(freeze_at)
        names = {n for n, p in trunk.net.named_parameters() if p.requires_grad}
        deep = 2 if name in ("convnext_atto", "efficientnet_b0") else 1
        parts = {".".join(n.split(".")[:deep]) for n in names}
        assert parts - {"conv_head.weight", "bn2.weight", "bn2.bias"} == expected
        before = {k: v.clone() for k, v in trunk.state_dict().items()}
        trunk.train()(torch.randn(2, 3, 64, 64))
        changed = {".".join(k.split(".")[1:][:deep]) for k, v in trunk.state_dict().items() if not v.equal(before[k])}
        assert changed <= expected
        assert bool(changed) == (bool(expected) and name != "convnext_atto")  # ConvNeXt has no statistics


def test_frozen_batch_norms_keep_the_activations_behind_them():
    torch.manual_seed(0)
    plain = create_backbone("timm/efficientnet_b0").eval()
    settle_norms(plain)
    frozen = create_backbone("timm/efficientnet_b0", norm="FrozenBN").train()
    frozen.load_state_dict({k: v for k, v in plain.state_dict().items() if "num_batches" not in k})
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in frozen.modules())
    assert any(isinstance(m, FrozenBatchNormAct2d) for m in frozen.modules())
    x = torch.randn(1, 3, 64, 96)
    expected, result = plain(x), frozen.eval()(x)
    for stage in expected:
        assert (result[stage] - expected[stage]).abs().max() / expected[stage].abs().max() < 1e-5


def test_refusals_name_what_is_wrong():
    with pytest.raises(ConfigError, match="no network 'convnext_ato'. Did you mean 'convnext_atto'"):
        create_backbone("timm/convnext_ato")
    with pytest.raises(ConfigError, match="no weights 'nonsense' of 'convnext_atto'"):
        create_backbone("timm/convnext_atto.nonsense")
    with pytest.raises(ConfigError, match=r"no feature map res2 \(stride 4\).*it has res4 \(stride 16\)"):
        create_backbone("timm/vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match="does not take images of 64 x 96 px"):
        create_backbone("timm/maxvit_nano_rw_256")
    with pytest.raises(ConfigError, match="convolutions without padding"):
        create_backbone("timm/legacy_xception")
    with pytest.raises(ConfigError, match="MODEL.GATE.PADDING squeeze is not possible for timm/convnext_atto"):
        create_backbone("timm/convnext_atto", padding="squeeze")
    with pytest.raises(ConfigError, match="MODEL.RESNETS.NORM 'GN' is not possible"):
        create_backbone("timm/convnext_atto", norm="GN")
    with pytest.raises(ConfigError, match="MODEL.BACKBONE.FREEZE_AT 1 is not possible for timm/hrnet_w18_small"):
        create_backbone("timm/hrnet_w18_small").freeze(1)
    with pytest.raises(ConfigError, match="does not read MODEL.RESNETS.STEM_POOL, which is ceil"):
        build_detector(config("test_resnet", "MODEL.RESNETS.STEM_POOL", "ceil"))
    with pytest.raises(ConfigError, match="has a gate on its residual branches already"):
        create_backbone("timm/seresnet50", gate="se")


def test_without_timm_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigError, match="timm/convnext_atto needs timm, which is not installed"):
        create_backbone("timm/convnext_atto")


def test_an_old_timm_is_refused(monkeypatch):
    monkeypatch.setattr(timm, "__version__", "1.0.9")
    with pytest.raises(ConfigError, match="needs timm 1.0.31 or newer, and 1.0.9 is installed"):
        create_backbone("timm/convnext_atto")


def test_a_training_step_reaches_every_parameter():
    for name in ("convnext_atto", "regnety_002", "efficientnet_b0"):
        trunk = create_backbone(f"timm/{name}").train()
        sum(x.square().mean() for x in trunk(torch.randn(2, 3, 64, 64)).values()).backward()
        assert [n for n, p in trunk.named_parameters() if p.grad is None] == []


def test_a_single_coarse_map_can_be_asked_for_and_a_classifier_sits_on_it():
    trunk = create_backbone("timm/vit_tiny_patch16_224", out_features=("res4",)).eval()
    assert trunk(torch.randn(1, 3, 64, 96))["res4"].shape == (1, 192, 4, 6)
    assert create_model("timm/test_resnet", num_classes=7)(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def test_timms_file_starts_a_detector_whose_checkpoint_comes_back(tmp_path):
    torch.manual_seed(0)
    published = timm.create_model("convnext_atto")
    save_file(published.state_dict(), tmp_path / "convnext_atto.safetensors")
    detector = build_detector(config("convnext_atto"))
    report = load_weights(detector, tmp_path / "convnext_atto.safetensors")
    prefix = "backbone.bottom_up.net."
    own = [key for key in detector.state_dict() if key.startswith(prefix)]
    assert own and set(own) <= set(report.loaded)
    assert all(torch.equal(detector.state_dict()[k], published.state_dict()[k.removeprefix(prefix)]) for k in own)
    head = ("norm.weight", "norm.bias", "fc.weight", "fc.bias")
    assert set(report.unexpected) == {f"{prefix}head.{name}" for name in head}

    torch.save({"model": detector.state_dict()}, tmp_path / "ours.pth")
    again = build_detector(config("convnext_atto"))
    assert not load_weights(again, tmp_path / "ours.pth", strict=True).missing
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in detector.state_dict().items())
    # The trunk of a detector starts a bare backbone.
    bare = create_backbone("timm/convnext_atto")
    load_weights(bare, tmp_path / "ours.pth")
    assert all(torch.equal(v, bare.net.state_dict()[k.removeprefix(prefix)]) for k, v in detector.state_dict().items()
               if k.startswith(prefix))  # fmt: skip
    with pytest.raises(WeightsError, match="of another architecture"):
        load_weights(build_detector(config("regnety_002")), tmp_path / "ours.pth")


def test_weights_of_timms_with_another_input_are_refused(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    wrong = build_detector(config("test_resnet", "INPUT.FORMAT", "BGR"))
    with pytest.raises(WeightsError, match=r"INPUT.FORMAT RGB \(it is BGR\).*MODEL.PIXEL_MEAN \[127.5"):
        load_weights(wrong, tmp_path / "w.safetensors")
    half = [127.5, 127.5, 127.5]
    right = build_detector(config("test_resnet", "MODEL.PIXEL_MEAN", half, "MODEL.PIXEL_STD", half))
    assert load_weights(right, tmp_path / "w.safetensors").loaded


@pytest.mark.parametrize("gate", ["se", "rg_se"])
def test_plain_weights_under_fresh_gates_keep_the_features(gate, tmp_path):
    torch.manual_seed(0)
    plain = timm.create_model("resnet18")
    settle_norms(plain)
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    overrides = ("MODEL.GATE.NAME", gate, "MODEL.GATE.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", 2)
    detector = build_detector(config("resnet18", "MODEL.RESNETS.NORM", "FrozenBN", *overrides))
    report = load_weights(detector, tmp_path / "w.safetensors")
    trunk = detector.backbone.bottom_up.eval()
    assert len(report.fresh_gates) == 8 == len(gated_branches(trunk))
    assert all(p.requires_grad for branch in trunk.blocks() for p in branch.gate.parameters())
    assert not trunk.net.layer1[0].conv1.weight.requires_grad
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = plain.eval().forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
        for ours, theirs in zip(trunk(x).values(), expected):
            assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-5
    # Its own checkpoint has the gates, and loading it doubles nothing.
    torch.save({"model": detector.state_dict()}, tmp_path / "ours.pth")
    again = build_detector(config("resnet18", "MODEL.RESNETS.NORM", "FrozenBN", *overrides))
    assert load_weights(again, tmp_path / "ours.pth").fresh_gates == []
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in detector.state_dict().items())


def test_a_gate_whose_norm_would_be_frozen_without_weights_is_refused(tmp_path):
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "w.safetensors")
    detector = build_detector(config("resnet18", "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.GATE.NAME", "rg_se"))
    assert any(isinstance(m, FrozenBatchNorm2d) for m in detector.backbone.bottom_up.blocks()[0].gate.modules())
    with pytest.raises(WeightsError, match="norm would be frozen"):
        load_weights(detector, tmp_path / "w.safetensors")
