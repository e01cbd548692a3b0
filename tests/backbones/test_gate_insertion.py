"""Gates put into networks that have none: the function stays, every gate is reached, grids follow the stride."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision

import se_det
from se_det.backbones import create_model
from se_det.backbones.gate_insertion import gated_branches, insert_gates
from se_det.errors import ConfigError
from se_det.layers.gates import RGSE, SE

timm = pytest.importorskip("timm", reason="timm's networks are what gates are put into")

# Network and the number of residual branches at strides 4 to 32: from the papers' tables of blocks (ResNet: 2 2 2 2,
# 3 4 6 3; RegNetX-200MF: 1 1 4 7; RegNetX-400MF: 1 2 7 12; ConvNeXt-A and -T: 2 2 6 2, 3 3 9 3; MobileNetV2 and
# EfficientNet-B0: the repeats of each line but its first block).
NETWORKS = [
    (timm, "resnet18", 8),
    (timm, "resnet26d", 8),
    (timm, "resnext50_32x4d", 16),
    (timm, "regnetx_002", 13),
    (timm, "regnety_002", 13),
    (timm, "convnext_atto", 12),
    (timm, "mobilenetv2_050", 10),
    (timm, "efficientnet_b0", 9),
    (torchvision.models, "resnet18", 8),
    (torchvision.models, "resnext50_32x4d", 16),
    (torchvision.models, "regnet_x_400mf", 22),
    (torchvision.models, "mobilenet_v2", 10),
    (torchvision.models, "mobilenet_v3_small", 6),
    (torchvision.models, "efficientnet_b0", 9),
    (torchvision.models, "convnext_tiny", 18),
]


def make(library, name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name) if library is timm else getattr(library, name)()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(0, 0.1)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("gamma", "layer_scale")):  # 1e-6 would hide the branches
            parameter.data.uniform_(0.5, 1.0)
    return model.eval()


@pytest.mark.parametrize(("library", "name", "count"), NETWORKS)
def test_inserted_gates_leave_the_function_and_take_part_in_it(library, name, count):
    model = make(library, name)
    plain_keys = set(model.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        names = insert_gates(model, "rg_se")
        assert len(names) == count == len(set(names))
        result = model(x)
        assert (result - expected).abs().max() / expected.abs().max() < 1e-5
        added = set(model.state_dict()) - plain_keys
        assert plain_keys <= set(model.state_dict())  # plain weights load as before
        assert {key.rsplit(".gate.", 1)[0] + ".gate" for key in added} == set(names)
        assert all(isinstance(model.get_submodule(gate), RGSE) for gate in names)
        twin = copy.deepcopy(model)
        assert torch.equal(twin(x), result)
        # A factor other than 0.5 in the last gate changes the result, and of the copy only.
        twin.get_submodule(names[-1]).fc2.bias.fill_(2.0)
        assert not torch.equal(twin(x), result) and torch.equal(model(x), result)
    model.train()
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    for gate in names:
        assert model.get_submodule(gate).fc2.bias.grad.abs().sum() > 0, gate


def test_a_gate_is_the_papers_block_and_sits_after_the_last_norm():
    # timm's SE-ResNet has the SE paper's gate there: plain ResNet with inserted gates is that network.
    torch.manual_seed(0)
    published = timm.create_model("seresnet50").eval()
    model = timm.create_model("resnet50").eval()
    insert_gates(model, "se", init="paper")
    weights = {k.replace(".se.fc", ".se.gate.fc"): v for k, v in published.state_dict().items()}
    model.load_state_dict({k: weights[k].reshape(v.shape) for k, v in model.state_dict().items()})
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, result = published(x), model(x)
    assert (result - expected).abs().max() / expected.abs().max() < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 28_088_024  # SE-ResNet-50 of the paper


@pytest.mark.parametrize(("gate", "parameters"), [("se", 28_088_024), ("sp_se", 28_480_728), ("rg_se", 28_212_440)])
def test_parameter_counts_are_the_papers(gate, parameters):
    for model in (torchvision.models.resnet50(), create_model("resnet50")):
        insert_gates(model, gate)
        assert sum(p.numel() for p in model.parameters()) == parameters


def test_grids_follow_the_stride_and_stages_can_be_chosen():
    model = timm.create_model("convnext_atto")
    names = se_det.insert_gates(model, "rg_se", stages=("res2", "res4", "res5"))
    grids = [(name.split(".")[1], model.get_submodule(name).grids[0]) for name in names]
    assert sorted(set(grids)) == [("0", 8), ("2", 2), ("3", 1)]
    assert len(gated_branches(model)) == 2 + 6 + 2


def test_our_own_plain_network_becomes_the_gated_one_of_the_catalog():
    model = create_model("resnet18").eval()
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    assert insert_gates(model, "sp_se")[0] == "trunk.res2.0.gate"
    assert set(model.state_dict()) == set(create_model("sp_se_resnet18").state_dict())
    assert (model(x) - expected).abs().max() / expected.abs().max() < 1e-5


def test_plain_weights_loaded_after_the_insertion_keep_their_function(tmp_path):
    plain = make(torchvision.models, "resnet18")
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    model = torchvision.models.resnet18().eval()
    insert_gates(model, "se")
    report = se_det.load_weights(model, tmp_path / "plain.pth")
    assert len(report.fresh_gates) == 8 and not report.unexpected
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert (model(x) - plain(x)).abs().max() / plain(x).abs().max() < 1e-5


def test_modes_and_types_are_kept():
    model = timm.create_model("test_resnet").double()
    model.layer1.eval()
    modes = {name: m.training for name, m in model.named_modules()}
    statistics = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    names = insert_gates(model)
    assert all(m.training == modes[name] for name, m in model.named_modules() if name in modes)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in statistics.items())
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert isinstance(model.get_submodule(names[0]), SE)


def test_refusals_leave_the_network_alone():
    with pytest.raises(ConfigError, match=r"VGG has no residual block of a class.*timm.models.resnet.Bottleneck"):
        insert_gates(torchvision.models.vgg11())
    model = timm.create_model("test_resnet")
    before = set(model.state_dict())
    with pytest.raises(ConfigError, match="The gate 'none' is unknown: use one of se, sp_se"):
        insert_gates(model, "none")
    with pytest.raises(ConfigError, match="INIT identity is not possible for cbam"):
        insert_gates(model, "cbam")
    with pytest.raises(ConfigError, match="There is no stage 'res1'"):
        insert_gates(model, stages=("res1",))
    with pytest.raises(ConfigError, match="initial values 'zero'"):
        insert_gates(model, init="zero")
    assert set(model.state_dict()) == before
    assert insert_gates(model, "cbam", init="paper")
    with pytest.raises(ConfigError, match="already"):
        insert_gates(model)
    with pytest.raises(ConfigError, match="already"):
        insert_gates(timm.create_model("seresnet18"))
