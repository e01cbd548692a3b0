"""A detector prepared for inference gives what the detector gave."""

import copy

import pytest
import torch
from torch import nn

from se_det.backbones.blocks import Bottleneck
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.detection.fuse import prepare_for_inference
from se_det.errors import ConfigError
from se_det.layers.norms import FrozenBatchNorm2d


def detector(gate="se", depth=50, **keys):
    """Random weights, statistics that matter, and scores that are far enough apart for the order to be one."""
    overrides = {
        "MODEL.WEIGHTS": "",
        "MODEL.GATE.NAME": gate,
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64 if depth < 50 else 256,
        "MODEL.ROI_HEADS.NUM_CLASSES": 4,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 50,
        **keys,
    }
    cfg = load_config("configs/mask_rcnn_se_r50_fpn.yaml", [part for pair in overrides.items() for part in pair])
    torch.manual_seed(0)
    model = build_detector(cfg)
    for module in model.modules():
        if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.normal_(0, 0.1)
    if gate == "none":  # without a gate's half, maps would double from block to block, and their rounding with them
        for block in (m for m in model.modules() if isinstance(m, Bottleneck)):
            block.conv3.norm.weight.data.mul_(0.5)
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(2)
    return model.eval()


IMAGE = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("gate, depth", [("none", 50), ("se", 50), ("sp_se", 18), ("cbam", 18)])
def test_equals_the_detector_in_float32(gate, depth):
    model = detector(gate, depth)
    fast = prepare_for_inference(copy.deepcopy(model))
    assert all(getattr(m, "norm", None) is None for m in fast.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        want = model([{"image": IMAGE}])[0]["instances"]
        got = fast([{"image": IMAGE}])[0]["instances"]
    assert len(want["scores"]) >= 5
    assert torch.equal(got["pred_classes"], want["pred_classes"])
    assert torch.allclose(got["scores"], want["scores"], atol=1e-4)
    assert torch.allclose(got["pred_boxes"], want["pred_boxes"], atol=1e-2)
    assert (got["pred_masks"] != want["pred_masks"]).float().mean() < 1e-3


def test_bfloat16_maps_are_within_its_rounding_and_results_are_float32():
    model = detector(depth=18)  # CPUs without units for it are slow
    fast = prepare_for_inference(copy.deepcopy(model), precision="bfloat16")
    x, _ = model.batch([IMAGE])
    with torch.no_grad():
        want, got = model.backbone(x), fast.backbone(fast.batch([IMAGE])[0])
        found = fast([{"image": IMAGE}])[0]["instances"]
    for name in want:
        assert got[name].dtype == torch.bfloat16
        assert float((got[name].float() - want[name]).norm() / want[name].norm()) < 0.02
    assert found["scores"].dtype == found["pred_boxes"].dtype == torch.float32 and len(found["scores"]) > 10


def test_norms_of_batches_and_groups():
    """Statistics of a batch norm in evaluation are folded; a group norm stays."""
    for norm in ("BN", "GN"):
        model = detector(**{"MODEL.RESNETS.NORM": norm, "MODEL.FPN.NORM": norm})
        x = model.batch([IMAGE])[0]
        with torch.no_grad():
            want = model.backbone(x)
            fast = prepare_for_inference(model)
            got = fast.backbone(fast.batch([IMAGE])[0])
        assert all(torch.allclose(got[name], want[name], rtol=1e-3, atol=1e-3) for name in want)
        kept = [m for m in fast.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))]
        assert bool(kept) == (norm == "GN")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match=r"TEST\.PRECISION 'float64' is unknown: use float32 or bfloat16"):
        prepare_for_inference(detector("none", 18), precision="float64")
