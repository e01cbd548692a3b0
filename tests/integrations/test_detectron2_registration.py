"""Our backbones inside an installed Detectron2."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")
from detectron2.config import LazyCall, instantiate
from detectron2.modeling import BACKBONE_REGISTRY, FPN, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from se_det import create_backbone as create_plain
from se_det.config import get_cfg, load_config
from se_det.config.loading import flatten, get_key
from se_det.detection.build import build_detector
from se_det.errors import ConfigError
from se_det.integrations import detectron2_version
from se_det.integrations.detectron2 import as_backbone, create_backbone, follow_image_sizes, register_backbone
from se_det.integrations.detectron2_engine import default_config

from .detectron2_pair import compare_inference, make_pair
from .known_weights import SLIM, fill, samples

pytestmark = pytest.mark.detectron2


def theirs(config: str, *overrides):
    return load_config(f"configs/{config}.yaml", [*SLIM, *overrides], defaults=default_config())


def test_every_default_that_both_have_is_equal():
    from detectron2.config import get_cfg as get_detectron2_cfg

    cfg, compared = get_detectron2_cfg(), 0
    known = dict(flatten(cfg))
    for key, value in flatten(get_cfg()):
        if key in known:
            compared += 1
            assert value == get_key(cfg, key), key
    assert compared >= 120


def test_the_three_builders_give_the_maps_that_their_names_promise():
    cfg = theirs("faster_rcnn_se_r50_fpn", "MODEL.GATE.NAME", "se")
    shapes = {}
    for name in (
        "build_se_resnet_backbone",
        "build_se_resnet_fpn_backbone",
        "build_se_resnet_retinanet_fpn_backbone",
    ):
        from detectron2.layers import ShapeSpec

        backbone = BACKBONE_REGISTRY.get(name)(cfg, ShapeSpec(channels=3))
        shapes[name] = {k: (v.channels, v.stride) for k, v in backbone.output_shape().items()}
        maps = backbone(torch.zeros(1, 3, 64, 96))
        assert {k: (m.shape[1], 64 // m.shape[2], 96 // m.shape[3]) for k, m in maps.items()} == {
            k: (channels, stride if stride <= 64 else 64, 96 // max(1, -(-96 // stride)))
            for k, (channels, stride) in shapes[name].items()
        }
    assert shapes["build_se_resnet_backbone"] == {
        "res2": (64, 4), "res3": (128, 8), "res4": (256, 16), "res5": (512, 32)
    }  # fmt: skip
    assert shapes["build_se_resnet_fpn_backbone"] == {f"p{i}": (32, 2**i) for i in range(2, 7)}
    assert shapes["build_se_resnet_retinanet_fpn_backbone"] == {f"p{i}": (32, 2**i) for i in range(2, 8)}


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN"])
def test_norms_and_frozen_stages_are_the_configs(norm: str):
    trunk = build_model(theirs("faster_rcnn_se_r50_fpn", "MODEL.RESNETS.NORM", norm, "MODEL.BACKBONE.FREEZE_AT", 2))
    trunk = trunk.backbone.bottom_up
    kind = {"FrozenBN": "FrozenBatchNorm2d", "BN": "BatchNorm2d", "SyncBN": "SyncBatchNorm"}[norm]
    assert type(trunk.res4[0].conv1.norm).__name__ == kind
    assert type(trunk.res2[0].conv1.norm).__name__ == "FrozenBatchNorm2d"
    trained = {name.split(".")[0] for name, p in trunk.named_parameters() if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}


def test_a_lazy_config_builds_the_same_backbone():
    lazy = LazyCall(FPN)(
        bottom_up=LazyCall(create_backbone)(name="se_resnet18", norm="FrozenBN", freeze_at=2),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=32,
        top_block=LazyCall(LastLevelMaxPool)(),
    )
    pyramid = fill(instantiate(lazy)).eval()
    trunk = fill(torch.nn.ModuleDict({"bottom_up": create_plain("se_resnet18", norm="FrozenBN")})).eval()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert list(pyramid(x)) == ["p2", "p3", "p4", "p5", "p6"]
    for name, map_ in trunk["bottom_up"](x).items():
        torch.testing.assert_close(pyramid.bottom_up(x)[name], map_, rtol=0, atol=0)


@pytest.mark.parametrize("gate", ["se", "sp_se", "rg_se", "cbam"])
def test_squeeze_gives_what_the_builtin_engine_gives(gate: str):
    ours, other = make_pair(gate, masks=True, overrides=[*SLIM, "MODEL.GATE.PADDING", "squeeze"])
    found = compare_inference(ours, other, samples())
    assert found["detections"] > 100
    assert found["FPN"] < 1e-5
    assert found["boxes px"] < 1e-2
    assert found["scores"] < 1e-4
    kept, _ = make_pair(gate, masks=True, overrides=SLIM)
    other.load_state_dict(kept.state_dict())
    assert compare_inference(kept, other, samples())["FPN"] > 1e-4  # it is not "keep" by another name


@pytest.mark.parametrize(
    "config, overrides",
    [
        ("retinanet_se_r50_fpn", ["MODEL.RETINANET.NUM_CLASSES", 3]),
        ("cascade_mask_rcnn_se_r50_fpn", []),
        ("panoptic_fpn_se_r50_fpn", []),
        ("faster_rcnn_se_r50_fpn", ["MODEL.META_ARCHITECTURE", "ProposalNetwork"]),
        ("faster_rcnn_se_r50_fpn", ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"]),
    ],
)
def test_squeeze_reaches_the_gates_of_every_meta_architecture(config: str, overrides: list):
    model = build_model(theirs(config, "MODEL.GATE.PADDING", "squeeze", *overrides)).eval()
    batch = [{k: s[k] for k in ("image", "height", "width")} for s in samples()]
    with pytest.raises(ConfigError, match="follow_image_sizes"):
        model(batch)
    seen = []
    follow_image_sizes(model)
    gate = model.backbone.bottom_up.res2[0].gate
    squeeze = gate.squeeze
    gate.squeeze = lambda u, area=None: seen.append(area) or squeeze(u, area)
    with torch.no_grad():
        model(batch)
        copy.deepcopy(model)(batch)
    # Sizes at stride 4 of the images, 128 x 160 and 96 x 192, in a batch of 128 x 192.
    assert [list(area.sizes) for area in seen] == [[(32, 40), (24, 48)]] * 2
    with pytest.raises(ConfigError, match="follow_image_sizes"):  # the sizes of one batch are not those of the next
        model.backbone(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("name", ["se_bn_inception", "rg_se_mobilenet_v1", "timm/resnet18"])
def test_models_of_the_catalog_and_of_timm_are_backbones_by_their_name(name: str):
    register_backbone(name)
    keys = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", name, "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.WEIGHTS", "",
            "MODEL.ROI_HEADS.NUM_CLASSES", 5]  # fmt: skip
    ours = fill(build_detector(load_config("configs/faster_rcnn_r50_fpn.yaml", keys))).eval()
    other = build_model(load_config("configs/faster_rcnn_r50_fpn.yaml", keys, defaults=default_config())).eval()
    other.load_state_dict(ours.state_dict())
    found = compare_inference(ours, other, samples())
    assert found["FPN"] < 1e-5
    assert found["boxes px"] < 1e-2


def test_squeeze_holds_under_test_time_augmentation():
    from detectron2.modeling import GeneralizedRCNNWithTTA

    cfg = theirs("mask_rcnn_se_r50_fpn", "MODEL.GATE.PADDING", "squeeze", "TEST.AUG.ENABLED", True,
                 "TEST.AUG.MIN_SIZES", (64, 96))  # fmt: skip
    model = follow_image_sizes(fill(build_model(cfg)).eval())
    sizes = []
    trunk = model.backbone.bottom_up
    trunk.register_forward_pre_hook(lambda module, args: sizes.append(module.image_sizes))
    batch = [{k: s[k] for k in ("image", "height", "width")} for s in samples()[:1]]
    with torch.no_grad():
        found = GeneralizedRCNNWithTTA(cfg, model)(batch)[0]["instances"]
    assert len(found) > 0
    assert {size for batch in sizes for size in batch} == {(64, 80), (96, 120)}


def test_exact_padding_and_a_config_without_our_keys_are_refused():
    from detectron2.config import get_cfg as get_detectron2_cfg

    with pytest.raises(ConfigError, match="builtin engine"):
        build_model(theirs("faster_rcnn_se_r50_fpn", "MODEL.GATE.PADDING", "exact"))
    with pytest.raises(ConfigError, match="builtin engine"):
        as_backbone(create_plain("se_resnet18", padding="exact"))
    cfg = get_detectron2_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.NAME = "cpu", "build_se_resnet_fpn_backbone"
    with pytest.raises(ConfigError, match=r"add_se_det_config\(cfg\)"):
        build_model(cfg)


def test_an_unsupported_version_is_refused_with_those_that_were_tested(monkeypatch: pytest.MonkeyPatch):
    import detectron2

    monkeypatch.setattr(detectron2, "__version__", "0.9")
    with pytest.raises(ConfigError, match=r"Detectron2 0\.9 was not tested.*0\.6"):
        detectron2_version.check_detectron2()
