"""Catalog names as MODEL.BACKBONE.NAME: what is built, what trains, what is refused."""

from __future__ import annotations

import pytest
import torch

from se_det.backbones import create_backbone
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.detection.bottom_up import build_bottom_up, gate_name
from se_det.errors import ConfigError

from .conftest import SMALL, make_sample


def config(name: str, *overrides, masks: bool = False):
    base = f"configs/{'mask' if masks else 'faster'}_rcnn_se_bn_inception_fpn.yaml"
    return load_config(base, [*SMALL, "MODEL.BACKBONE.NAME", name, *overrides])


@pytest.mark.parametrize("name", ["se_bn_inception", "rg_se_mobilenet_v1", "se_vgg16_bn", "se_shufflenet_v1"])
def test_a_training_step_reaches_every_parameter_but_the_frozen(name, samples):
    torch.manual_seed(0)
    model = build_detector(config(name, "MODEL.BACKBONE.FREEZE_AT", 1, masks=name == "se_bn_inception"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    losses = model(samples)
    sum(losses.values()).backward()
    trained = {key for key, p in model.named_parameters() if p.grad is not None}
    assert {key for key, p in model.named_parameters()} - trained == {
        f"backbone.bottom_up.stem.{key}" for key, _ in model.backbone.bottom_up.stem.named_parameters()
    }
    optimizer.step()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and not any(key.startswith("backbone.bottom_up.stem.") for key in changed)


@pytest.mark.parametrize("name", ["rg_se_bn_inception", "cbam_shufflenet_v1"])
def test_under_exact_padding_batch_mates_change_nothing(name):
    torch.manual_seed(0)
    model = build_detector(config(name, "MODEL.GATE.PADDING", "exact")).eval()
    # Scores so far apart that rounding does not turn over their order.
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(60)
    small, large = make_sample(90, 123, [], seed=1), make_sample(160, 150, [], seed=2)
    with torch.no_grad():
        alone, beside = (model(batch)[0]["instances"] for batch in ([small], [small, large]))
    assert len(alone["scores"]) > 0
    torch.testing.assert_close(beside["scores"], alone["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(beside["pred_boxes"], alone["pred_boxes"], rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    "name, gate",
    [("senet154", "se"), ("sp_se_resnext50_32x4d", "sp_se"), ("rg_se_vgg16_bn", "rg_se"), ("bn_inception", "none")],
)
def test_a_name_builds_its_trunk(name, gate):
    cfg = config(name, "MODEL.RESNETS.STEM_POOL", "ceil" if name == "senet154" else "pad1")
    with torch.device("meta"):
        trunk, expected = build_bottom_up(cfg), create_backbone(name)
    assert {k: v.shape for k, v in trunk.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}
    assert gate_name(cfg) == gate


def test_keys_reach_a_named_trunk():
    cfg = config("se_mobilenet_v1", "MODEL.GATE.REDUCTION", 8, "MODEL.GATE.STAGES", ["res4"], "MODEL.RESNETS.NORM",
                 "FrozenBN", "MODEL.GATE.BIAS", False)  # fmt: skip
    with torch.device("meta"):
        trunk = build_bottom_up(cfg)
    gate = trunk.res4[0].gate
    assert gate.fc1.out_features == 512 // 8 and gate.fc1.bias is None
    assert trunk.res3[0].gate is None and trunk.stem.unit1.gate is None
    assert type(trunk.res3[0].pointwise.norm).__name__ == "FrozenBatchNorm2d"
    with torch.device("meta"):
        resnet = build_bottom_up(config("se_resnet50", "MODEL.RESNETS.STRIDE_IN_1X1", True))
    assert resnet.res3[0].conv1.stride == (2, 2)


@pytest.mark.parametrize(
    "name, overrides, sentence",
    [
        ("se_bn_inceptoin", (), "'se_bn_inceptoin' is unknown: .*Did you mean 'se_bn_inception'.*--engine detectron2"),
        ("se_bn_inception", ("MODEL.GATE.NAME", "cbam"), "has the gate 'se', and MODEL.GATE.NAME is 'cbam': leave"),
        ("vgg16_bn", ("MODEL.GATE.NAME", "se"), "has the gate 'none', and MODEL.GATE.NAME is 'se': leave"),
        ("se_bn_inception", ("MODEL.RESNETS.DEPTH", 101), "not read MODEL.RESNETS.DEPTH, which is 101: .*default, 50"),
        ("se_resnet50", ("MODEL.RESNETS.NUM_GROUPS", 32), "does not read MODEL.RESNETS.NUM_GROUPS, which is 32"),
        ("se_bn_inception", ("MODEL.RESNETS.STEM_POOL", "ceil"), "does not read MODEL.RESNETS.STEM_POOL"),
        ("senet154", (), "senet154 has MODEL.RESNETS.STEM_POOL ceil, and the config says pad1: set it to ceil"),
        ("senet154", ("MODEL.RESNETS.STEM_POOL", "ceil", "MODEL.RESNETS.STRIDE_IN_1X1", True),
         "senet154 has MODEL.RESNETS.STRIDE_IN_1X1 False, and the config says True"),
        ("se_vgg16_bn", ("MODEL.GATE.PLACEMENT", "post"), "MODEL.GATE.PLACEMENT 'post' is defined for ResNet"),
        ("se_shufflenet_v1", ("MODEL.RESNETS.NORM", "GN"), "NORM GN needs channels in multiples of 32, got 24"),
    ],
)  # fmt: skip
def test_what_is_refused(name, overrides, sentence):
    with pytest.raises(ConfigError, match=sentence), torch.device("meta"):
        build_detector(config(name, *overrides))


@pytest.mark.parametrize("given", ["", "none", "se"])
def test_the_gate_may_be_repeated(given):
    with torch.device("meta"):
        assert gate_name(config("se_mobilenet_v1", "MODEL.GATE.NAME", given)) == "se"
        build_detector(config("se_mobilenet_v1", "MODEL.GATE.NAME", given))
