"""Parameter counts, names and outputs of the catalog, against the papers and timm."""

from __future__ import annotations

import pytest
import torch

from se_det.backbones import create_backbone, create_model, list_models
from se_det.backbones.fpn import FPN
from se_det.errors import ConfigError

# With a 1000-way head: plain, SE, SP-SE, RG-SE, CBAM.
PARAMETERS = {
    "resnet50": (25_557_032, 28_088_024, 28_480_728, 28_212_440, 28_089_624),
    "resnet101": (44_549_160, 49_326_872, 50_172_184, 49_555_736, 49_330_172),
    "resnet152": (60_192_808, 66_821_848, 68_066_520, 67_167_448),
    "resnext50_32x4d": (25_028_904, 27_559_896, 27_952_600, 27_684_312),
    "resnext101_32x4d": (44_177_704, 48_955_416, 49_800_728, 49_184_280),
    "resnet18": (11_689_512, 11_778_592),
    "resnet34": (21_797_672, 21_958_868),
    "senet154": (115_088_984,),
}
GATES = ("", "se_", "sp_se_", "rg_se_", "cbam_")


@pytest.mark.parametrize("host", PARAMETERS)
def test_parameter_counts(host):
    for gate, expected in zip(GATES, PARAMETERS[host]):  # senet154's bare name has SE
        with torch.device("meta"):
            model = create_model(gate + host)
        assert sum(p.numel() for p in model.parameters()) == expected, gate + host


def to_timm(name: str) -> str:
    """Our key to timm's of its ResNet."""
    name = name.removeprefix("trunk.")
    name = name.replace("stem.conv1.norm", "bn1").replace("stem.conv1", "conv1")
    for stage in range(2, 6):
        name = name.replace(f"res{stage}.", f"layer{stage - 1}.")
    for k in (1, 2, 3):
        name = name.replace(f"conv{k}.norm", f"bn{k}")
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    return name.replace("gate.", "se.").replace("linear.", "fc.")


def to_legacy(name: str) -> str:
    """Our key to that of timm's legacy SENets."""
    name = name.removeprefix("trunk.").replace("stem.", "layer0.")
    for stage in range(2, 6):
        name = name.replace(f"res{stage}.", f"layer{stage - 1}.")
    for k in (1, 2, 3):
        name = name.replace(f"conv{k}.norm", f"bn{k}")
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    return name.replace("gate.", "se_module.").replace("linear.", "last_linear.")


def as_if_trained(peer: torch.nn.Module) -> torch.Generator:
    """Weights that let the image through to the output, and statistics and scales that a mistake shows in."""
    generator = torch.Generator().manual_seed(1)
    for module in peer.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
    return generator


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("resnet50", "resnet50"),
        ("resnext50_32x4d", "resnext50_32x4d"),
        ("se_resnet50", "seresnet50"),
        ("se_resnext50_32x4d", "seresnext50_32x4d"),
        ("resnet18", "resnet18"),
    ],
)
def test_forward_equals_timms_on_the_same_weights(ours, theirs):
    timm = pytest.importorskip("timm", reason="timm is the peer that outputs are compared with")
    torch.manual_seed(0)
    peer = timm.create_model(theirs).eval()
    generator = as_if_trained(peer)
    weights = peer.state_dict()
    model = create_model(ours).eval()
    model.load_state_dict({name: weights[to_timm(name)].reshape(t.shape) for name, t in model.state_dict().items()})
    for size in ((224, 224), (157, 203)):
        x = torch.randn(2, 3, *size, generator=generator)
        with torch.no_grad():
            expected, result = peer(x), model(x)
        assert (result - expected).abs().max() / expected.abs().max() < 1e-5


def test_senet154_equals_timms_on_the_same_weights():
    timm = pytest.importorskip("timm", reason="timm is the peer that outputs are compared with")
    torch.manual_seed(0)
    peer = timm.create_model("legacy_senet154").eval()
    generator = as_if_trained(peer)
    weights = peer.state_dict()
    with torch.device("meta"):
        model = create_model("senet154").eval()
    renamed = {name: weights[to_legacy(name)].reshape(t.shape) for name, t in model.state_dict().items()}
    model.load_state_dict(renamed, assign=True)
    x, other = torch.randn(2, 1, 3, 99, 140, generator=generator)  # at 99 the two ways to pool the stem differ
    with torch.no_grad():
        expected, result, of_another = peer(x), model(x), model(other)
    assert (of_another - expected).abs().max() / expected.abs().max() > 0.01  # what is compared depends on the image
    assert (result - expected).abs().max() / expected.abs().max() < 1e-5


def test_backbone_returns_its_stages_with_their_strides():
    trunk = create_backbone("se_resnet18", out_features=("res3", "res5"))
    maps = trunk(torch.randn(1, 3, 64, 96))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {"res3": (1, 128, 8, 12), "res5": (1, 512, 2, 3)}
    dilated = create_backbone("resnet50", res5_dilation=2)
    assert dilated.strides["res5"] == 16
    assert dilated(torch.randn(1, 3, 64, 64))["res5"].shape[-1] == 4


def test_freezing_fixes_the_first_stages_and_their_statistics():
    trunk = create_backbone("se_resnet50", norm="BN")
    trunk.freeze(2)
    trained = {name.split(".")[0] for name, p in trunk.named_parameters() if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    trunk.train()(torch.randn(2, 3, 64, 64))
    changed = {k.split(".")[0] for k, v in trunk.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"res3", "res4", "res5"}


def test_frozen_batch_norm_folded_into_its_convolution_changes_nothing():
    for name in ("se_resnet18", "rg_se_resnet50"):
        torch.manual_seed(0)
        plain = create_backbone(name, norm="BN").eval()
        for module in plain.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        frozen = create_backbone(name, norm="FrozenBN")
        frozen.load_state_dict({k: v for k, v in plain.state_dict().items() if "num_batches" not in k})
        x = torch.randn(1, 3, 75, 99)
        expected = plain(x)["res5"]
        assert (frozen(x)["res5"] - expected).abs().max() / expected.abs().max() < 1e-5


def test_identity_gates_leave_a_plain_network_unchanged():
    torch.manual_seed(0)
    plain = create_backbone("resnet50").eval()
    x = torch.randn(1, 3, 64, 64)
    expected = plain(x)["res5"]
    for gate in ("se", "sp_se", "rg_se"):
        gated = create_backbone(f"{gate}_resnet50").eval()
        gated.load_state_dict(plain.state_dict(), strict=False)
        for block in gated.blocks():
            block.preserve_function()
        assert (gated(x)["res5"] - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.parametrize("norm", ["FrozenBN", "GN"])
@pytest.mark.parametrize("gate", ["", "se_", "sp_se_", "rg_se_", "cbam_"])
def test_exact_padding_makes_features_those_of_the_image_alone(gate, norm):
    torch.manual_seed(0)
    for pool in ("pad1", "ceil"):
        trunk = create_backbone(f"{gate}resnet18", norm=norm, padding="exact", stem_pool=pool)
        net = FPN(trunk, in_features=("res2", "res3", "res4", "res5"), out_channels=32).eval()
        alone = torch.randn(1, 3, 78, 101)
        batch = torch.zeros(2, 3, 128, 160)
        batch[:1, :, :78, :101] = alone
        batch[1] = torch.randn(3, 128, 160)
        with torch.no_grad():
            expected, result = net(alone, sizes=[(78, 101)]), net(batch, sizes=[(78, 101), (128, 160)])
        for name, x in expected.items():
            cut = result[name][:1, :, : x.shape[2], : x.shape[3]]
            assert (cut - x).abs().max() / x.abs().max() < 1e-5, (pool, name)


def test_padding_other_than_keep_needs_sizes():
    with pytest.raises(ConfigError, match=r"MODEL.GATE.PADDING squeeze needs the sizes"):
        create_backbone("se_resnet18", padding="squeeze")(torch.randn(1, 3, 64, 64))


def test_names():
    assert list_models("*senet154") == ["senet154", "sp_se_senet154", "rg_se_senet154", "cbam_senet154"]
    assert "rg_se_resnext101_32x4d" in list_models("rg_se_*")
    assert all(name.startswith("rg_se_") for name in list_models("rg_se_*"))
    with pytest.raises(ConfigError, match="Did you mean 'se_resnet50'"):
        create_model("seresnet50")
    with pytest.raises(ConfigError, match="MODEL.RESNETS.NORM|NORM 'LN'"):
        create_backbone("resnet18", norm="LN")
