"""The hosts that are not ResNets: counts, outputs of the same weights elsewhere, gates and padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from se_det.backbones import create_backbone, create_model, list_models
from se_det.backbones.bn_inception import CeilMaxPool2d, Inception
from se_det.errors import ConfigError
from se_det.layers.gates import SE
from se_det.layers.pool import Pool
from se_det.layers.valid_area import ValidArea
from se_det.weights import load_weights

HOSTS = ("bn_inception", "vgg16_bn", "mobilenet_v1", "shufflenet_v1", "inception_resnet_v2")
# The largest, for the tests that need a forward pass of several variants.
SLOW_LARGEST = [*HOSTS[:-1], pytest.param(HOSTS[-1], marks=pytest.mark.slow)]
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options).eval()


def parameters(name: str) -> int:
    return sum(p.numel() for p in on_meta(name).parameters())


def multiply_adds(name: str, size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        on_meta(name)(torch.empty(1, 3, size, size))
    return counter.get_total_flops() / 2


def as_if_trained(model: nn.Module) -> None:
    """Weights that let the image through to the output, and statistics, scales and shifts that a mistake shows in."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.1)


@pytest.mark.parametrize(
    "name, expected",
    [
        # Every layer of models/SE-BN-Inception.prototxt of the authors: 10,240,192 + 20,032 in convolutions and norms,
        # 646,398 in the gates, 1,025,000 in the classifier. OpenVINO's Open Model Zoo gives 11.922 M for the same file
        # with the 10,016 scales folded away. A count of 11,944,870 takes the ten layers that multiply by the gate's
        # factors for norms with 2 C parameters of their own (13,248), which they do not have.
        ("se_bn_inception", 11_931_622),
        ("vgg16_bn", 138_365_992),  # torchvision
        ("mobilenet_v1", 4_231_976),  # Keras: 4,253,864, of which 21,888 are statistics
        ("shufflenet_v1", 1_865_728),  # pytorchcv, shufflenet_g3_w1
        ("inception_resnet_v2", 55_843_464),  # timm
    ],
)
def test_parameter_counts_of_others(name, expected):
    assert parameters(name) == expected


def test_counts_of_the_se_paper():
    # Hu et al., tables 2 and 3, multiply-adds and parameters as printed there.
    for name, giga in {"bn_inception": 2.03, "se_bn_inception": 2.04, "vgg16_bn": 15.47, "se_vgg16_bn": 15.48}.items():
        assert multiply_adds(name, 224) / 1e9 == pytest.approx(giga, abs=0.011)
    for name, mega in {"mobilenet_v1": 569, "se_mobilenet_v1": 572, "shufflenet_v1": 140}.items():
        assert multiply_adds(name, 224) / 1e6 == pytest.approx(mega, rel=0.02)
    assert round(parameters("mobilenet_v1") / 1e6, 1) == 4.2
    assert round(parameters("se_mobilenet_v1") / 1e6, 1) == 4.7
    assert int(parameters("shufflenet_v1") / 1e5) / 10 == 1.8
    assert int(parameters("se_shufflenet_v1") / 1e5) / 10 == 2.4


def test_bn_inceptions_modules():
    modules = [m for m in on_meta("se_bn_inception").modules() if isinstance(m, Inception)]
    assert [m.out_channels for m in modules] == [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]
    assert [m.gate.fc1.out_features for m in modules] == [16, 20, 36, 36, 36, 38, 38, 66, 64, 64]
    names = on_meta("se_bn_inception").trunk.state_dict()
    assert {"stem.conv1.weight", "res3.inception_3a.3x3_reduce.norm.weight", "res5.inception_5b.pool_proj.weight",
            "res4.inception_3c.gate.fc2.bias"} <= set(names)  # fmt: skip


def test_an_inception_module_is_the_prototxts():
    torch.manual_seed(0)
    trunk = create_backbone("se_bn_inception").eval()
    as_if_trained(trunk)
    x = torch.rand(2, 192, 14, 14)
    module = trunk.res3.inception_3a

    def conv(name, x):
        layer = getattr(module, name)
        return F.relu(layer.norm(F.conv2d(x, layer.weight, padding=layer.weight.shape[-1] // 2)))

    # Caffe's average divides by nine at the border too.
    pooled = F.conv2d(x, torch.full((192, 1, 3, 3), 1 / 9), padding=1, groups=192)
    u = torch.cat(
        [
            conv("1x1", x),
            conv("3x3", conv("3x3_reduce", x)),
            conv("double3x3b", conv("double3x3a", conv("double3x3_reduce", x))),
            conv("pool_proj", pooled),
        ],
        1,
    )
    hidden = F.relu(module.gate.fc1(u.mean((2, 3))))
    expected = u * torch.sigmoid(module.gate.fc2(hidden))[:, :, None, None]
    torch.testing.assert_close(module(x)[0], expected, rtol=1e-5, atol=1e-5)


def test_the_pool_of_a_stride_covers_the_map():
    x = torch.rand(1, 2, 8, 12)
    assert torch.equal(CeilMaxPool2d()(x)[0], F.max_pool2d(x, 3, 2, ceil_mode=True))  # Caffe's
    odd = torch.rand(1, 2, 7, 9)
    assert torch.equal(CeilMaxPool2d()(odd)[0], F.max_pool2d(F.pad(odd, (0, 2, 0, 2), value=-1), 3, 2))
    assert CeilMaxPool2d()(odd)[0].shape[-2:] == (4, 5)


def test_vgg16_equals_torchvisions_and_timms():
    timm = pytest.importorskip("timm", reason="timm is the peer that outputs are compared with")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    with torch.device("meta"):
        peers = [torchvision.models.vgg16_bn(num_classes=10), timm.create_model("vgg16_bn", num_classes=10)]
        model = create_model("vgg16_bn", num_classes=10)
    model = model.to_empty(device="cpu").eval()
    for p in model.parameters():
        p.data.normal_(0, (2 / p[0].numel()) ** 0.5 if p.dim() > 1 else 0.1)
    for b in model.buffers():
        b.data.fill_(0)
    as_if_trained(model)
    trunk = [m for m in model.trunk.modules() if isinstance(m, nn.Conv2d)]
    layers = [t for conv in trunk for t in [conv.weight, conv.bias, *conv.norm.state_dict().values()]]
    head = [t for m in (model.hidden1, model.hidden2, model.linear) for t in (m.weight, m.bias)]
    for peer in peers:
        state = peer.state_dict()
        values = {k: v.reshape(state[k].shape) for k, v in zip(state, [*layers, *head], strict=True)}
        peer.load_state_dict(values, assign=True)
        peer.eval()
    with torch.no_grad():
        for size in ((224, 224), (231, 245)):
            x = torch.randn(1, 3, *size)
            expected, result = [peer(x) for peer in peers], model(x)
            assert result.std() > 0.05  # not the biases alone
            for logits in expected:
                assert (result - logits).abs().max() / logits.abs().max() < 1e-5


def to_timms_inception_resnet(name: str, peer: dict) -> str:
    """Our key to timm's."""
    name = name.removeprefix("trunk.").replace(".branches.", ".")
    for ours, theirs in {
        "stem.conv1": "conv2d_1a", "stem.conv2": "conv2d_2a", "stem.conv3": "conv2d_2b", "res2.conv1": "conv2d_3b",
        "res2.conv2": "conv2d_4a", "res3.mixed": "mixed_5b", "res4.mixed": "mixed_6a", "res5.mixed": "mixed_7a",
        "res5.blocks.9": "block8", "res3.blocks": "repeat", "res4.blocks": "repeat_1", "res5.blocks": "repeat_2",
        "res5.conv1": "conv2d_7b", "linear": "classif", "branch3.proj": "branch3.1",
    }.items():  # fmt: skip
        name = name.replace(ours, theirs)
    name = name.replace(".norm.", ".bn.").replace("project", "conv2d")
    if ".bn." not in name and "classif" not in name and ".conv2d." not in name:
        name = name.replace(".weight", ".conv.weight")
    return name if name in peer else name.replace(".0.conv", ".conv").replace(".0.bn", ".bn")


def test_inception_resnet_equals_timms():
    timm = pytest.importorskip("timm", reason="timm is the peer that outputs are compared with")
    torch.manual_seed(0)
    peer = timm.create_model("inception_resnet_v2").eval()
    as_if_trained(peer)
    weights = peer.state_dict()
    model = on_meta("inception_resnet_v2")
    renamed = {k: weights[to_timms_inception_resnet(k, weights)] for k in model.state_dict()}
    model.load_state_dict(renamed, assign=True)
    with torch.no_grad():
        for size in ((224, 224), (155, 203)):
            x = torch.randn(1, 3, *size)
            expected, result, of_another = peer(x), model(x), model(torch.randn(1, 3, *size))
            # What is compared depends on the image.
            assert (of_another - expected).abs().max() / expected.abs().max() > 0.01
            assert (result - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.parametrize("host", HOSTS)
def test_names_and_strides(host):
    assert {f"{gate}_{host}" for gate in ("se", "sp_se", "rg_se", "cbam")} < set(list_models())
    for gate in ("", "sp_se_"):
        with torch.device("meta"):
            trunk = create_backbone(gate + host).eval()
            maps = trunk(torch.empty(2, 3, 96, 128))
        assert trunk.strides == STRIDES
        for name, x in maps.items():
            assert x.shape == (2, trunk.channels[name], 96 // STRIDES[name], 128 // STRIDES[name])


@pytest.mark.parametrize("host", SLOW_LARGEST)
def test_padding(host):
    """`squeeze`: what a gate sees are the image's own cells. `exact`: the features are those of the image alone."""
    torch.manual_seed(0)
    alone = torch.randn(1, 3, 78, 101)
    batch = torch.zeros(1, 3, 128, 160)
    batch[..., :78, :101] = alone
    for gate in ("rg_se", "cbam"):
        trunk = create_backbone(f"{gate}_{host}", padding="squeeze").eval()
        seen: list[tuple] = []
        for block in trunk.blocks():
            if block.gate is not None:
                block.gate.register_forward_pre_hook(lambda gate, arguments, seen=seen: seen.append((gate, *arguments)))
        with torch.no_grad():
            trunk(batch, [(78, 101)])
            in_batch, seen[:] = list(seen), []
            trunk(alone, [(78, 101)])
            for (gate_, u, area), (_, u_alone, _) in zip(in_batch, seen, strict=True):
                height, width = area.sizes[0]
                # The area has the size of the map that the image has alone.
                assert (height, width) == u_alone.shape[-2:]
                for here, expected in zip(gate_.squeeze(u, area), gate_.squeeze(u[..., :height, :width])):
                    torch.testing.assert_close(here, expected, rtol=1e-5, atol=1e-6)
        trunk = create_backbone(f"{gate}_{host}", padding="exact").eval()
        as_if_trained(trunk)  # whose shifts make the zeros around an image something else
        with torch.no_grad():
            expected, result = trunk(alone, [(78, 101)]), trunk(batch, [(78, 101)])
        for name, x in expected.items():
            cut = result[name][..., : x.shape[2], : x.shape[3]]
            assert (cut - x).abs().max() / x.abs().max() < 1e-5, name


def test_averages_that_leave_padding_out_know_the_image():
    x = torch.rand(1, 3, 9, 12)
    pool = Pool("avg", 3, padding=1, count_padding=False)
    expected = F.avg_pool2d(x[..., :5, :7], 3, 1, 1, count_include_pad=False)
    result, area = pool(x, ValidArea.from_sizes([(5, 7)], exact=True))
    torch.testing.assert_close(result[..., :5, :7], expected)
    assert area.sizes == ((5, 7),)


@pytest.mark.parametrize("host", SLOW_LARGEST)
def test_plain_weights_start_a_gated_network_whose_function_they_keep(host, tmp_path):
    torch.manual_seed(0)
    plain = create_backbone(host).eval()
    as_if_trained(plain)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = plain(x)
        for gate in ("se", "rg_se"):
            gated = create_backbone(f"{gate}_{host}").eval()
            report = load_weights(gated, tmp_path / "plain.pth")
            gates = sum(isinstance(m, SE) for m in gated.modules())
            assert len(report.fresh_gates) == gates > 0 and not report.unexpected
            for name, y in gated(x).items():
                assert (y - expected[name]).abs().max() / y.abs().max() < 1e-5


@pytest.mark.parametrize("host", HOSTS)
def test_freezing(host):
    trunk = create_backbone(f"se_{host}")
    trunk.freeze(3)
    assert {name.split(".")[0] for name, p in trunk.named_parameters() if p.requires_grad} == {"res4", "res5"} - (
        {"res5"} if host == "vgg16_bn" else set()  # which is a pool
    )


def test_what_a_host_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="MODEL.GATE.PLACEMENT 'pre' is defined for ResNet.*MobileNet has standard"):
        create_backbone("se_mobilenet_v1", gate_placement="pre")
    with pytest.raises(ConfigError, match=r"MODEL.GATE.STAGES \['res2'\] has no block that takes a gate in BNIncept"):
        create_backbone("se_bn_inception", gate_stages=["res2"])
