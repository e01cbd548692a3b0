"""R-CNN without a pyramid. Its numbers beside Detectron2's: test_golden_families.py."""

from __future__ import annotations

import copy

import pytest
import torch

from se_det.backbones import create_model
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.detection.fuse import prepare_for_inference
from se_det.errors import ConfigError, WeightsError
from se_det.weights import load_weights

from .conftest import make_sample


def detector(config: str = "faster_rcnn_se_r50_c4", *overrides: object):
    torch.manual_seed(1)
    keys = [
        "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.RESNETS.WIDTH_PER_GROUP", 16, "MODEL.MASK_ON", True,
        "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0,
        "MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.RPN.PRE_NMS_TOPK_TEST", 60,
        "MODEL.RPN.POST_NMS_TOPK_TEST", 30, "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 60, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 30,
        "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.05, *overrides,
    ]  # fmt: skip
    model = build_detector(load_config(f"configs/{config}.yaml", keys))
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(3)
        model.roi_heads.box_predictor.cls_score.weight[-1].zero_()  # the background's
    return model


def test_the_last_stage_and_its_gates_are_in_the_head_alone():
    model = detector("faster_rcnn_se_r50_c4", "MODEL.GATE.NAME", "rg_se")
    names = model.state_dict().keys()
    assert not any(name.startswith("backbone.res5.") for name in names)
    assert "roi_heads.res5.0.gate.fc1.weight" in names and "backbone.res4.0.conv1.weight" in names
    losses = model([make_sample(96, 128, [[10, 20, 60, 70], [50, 5, 120, 90]]), make_sample(64, 80, [], seed=1)])
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("config", ["faster_rcnn_se_r50_c4", "faster_rcnn_se_r50_dc5"])
def test_prepared_for_inference_it_gives_the_same(config: str):
    model, sample = detector(config).eval(), make_sample(96, 130, [])
    fast = prepare_for_inference(copy.deepcopy(model))
    with torch.no_grad():
        want, got = (one([sample])[0]["instances"] for one in (model, fast))
    assert len(want["scores"]) > 5 and torch.equal(got["pred_classes"], want["pred_classes"])
    assert (got["scores"] - want["scores"]).abs().max() < 1e-4
    assert (got["pred_boxes"] - want["pred_boxes"]).abs().max() < 1e-2
    assert (got["pred_masks"] != want["pred_masks"]).float().mean() < 1e-3


@pytest.mark.parametrize("config", ["faster_rcnn_se_r50_c4", "faster_rcnn_se_r50_dc5"])
def test_under_exact_padding_batch_mates_change_nothing(config: str):
    small, large = make_sample(90, 123, [], seed=1), make_sample(160, 150, [], seed=2)
    model = detector(config, "MODEL.GATE.PADDING", "exact").eval()
    with torch.no_grad():
        alone, beside = (model(batch)[0]["instances"] for batch in ([small], [small, large]))
    assert len(alone["scores"]) > 5 and torch.equal(beside["pred_classes"], alone["pred_classes"])
    assert (beside["pred_boxes"] - alone["pred_boxes"]).abs().max() < 1e-2
    assert (beside["scores"] - alone["scores"]).abs().max() < 1e-4


def test_a_classifiers_last_stage_starts_the_head(tmp_path):
    source = create_model("se_resnet50", num_classes=4, width_per_group=16, res2_channels=64)
    path = tmp_path / "classifier.pth"
    torch.save({"model": source.state_dict()}, path)
    model = detector()
    report = load_weights(model, path)
    state = source.state_dict()
    for own, name in (("backbone.res4.1.", "res4.1."), ("roi_heads.res5.2.", "res5.2.")):
        [prefix] = {key.split(name)[0] for key in state if name in key}
        assert torch.equal(model.state_dict()[f"{own}conv3.weight"], state[f"{prefix}{name}conv3.weight"])
    assert not report.unexpected or all("linear" in name for name in report.unexpected)
    del state["trunk.res5.1.conv2.weight" if "trunk.res5.1.conv2.weight" in state else "res5.1.conv2.weight"]
    torch.save({"model": state}, path)
    with pytest.raises(WeightsError, match=r"lacks 1 weights of the backbone: roi_heads.res5.1.conv2.weight"):
        load_weights(detector(), path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.WIDTH_PER_GROUP", 64), "needs bottlenecks: use 50 or more"),
        (("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, False, True]), "set its last to False"),
        (("MODEL.RESNETS.OUT_FEATURES", ["res3"], "MODEL.RPN.IN_FEATURES", ["res3"], "MODEL.ROI_HEADS.IN_FEATURES",
          ["res3"]), r"has 128 channels, and res5 reads 256: set it to \[res4\]"),
        (("MODEL.RPN.IN_FEATURES", ["res3"]), r"MODEL.RPN.IN_FEATURES \['res3'\] must name maps of the backbone"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_key(overrides: tuple, message: str):
    with pytest.raises(ConfigError, match=message):
        detector("faster_rcnn_se_r50_c4", *overrides)
