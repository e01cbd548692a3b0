"""The detector as a whole: losses written out naively, empty inputs, padding, dtypes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from se_det.detection import boxes as box_ops
from se_det.detection import build_detector
from se_det.detection.masks import _paste_full_size
from se_det.detection.matching import match
from se_det.detection.rcnn import paste_detections
from se_det.detection.rpn import gather_anchors
from se_det.detection.rpn_head import RPNHead
from se_det.errors import ConfigError, TrainingError, WeightsError
from se_det.layers.valid_area import ValidArea

from .conftest import make_sample, small_config

EVERYTHING = ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 100_000, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000,
              "MODEL.RPN.POSITIVE_FRACTION", 1.0, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0)  # fmt: skip


def test_names_are_detectron2s():
    names = set(build_detector(small_config()).state_dict())
    assert {
        "backbone.bottom_up.stem.conv1.weight",
        "backbone.bottom_up.res2.0.conv1.norm.running_mean",
        "backbone.bottom_up.res3.0.shortcut.weight",
        "backbone.bottom_up.res5.1.gate.fc2.bias",
        "backbone.fpn_lateral2.weight",
        "backbone.fpn_output5.bias",
        "proposal_generator.rpn_head.conv.weight",
        "proposal_generator.rpn_head.objectness_logits.weight",
        "proposal_generator.rpn_head.anchor_deltas.bias",
        "roi_heads.box_head.fc1.weight",
        "roi_heads.box_head.fc2.bias",
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.mask_head.mask_fcn4.weight",
        "roi_heads.mask_head.deconv.weight",
        "roi_heads.mask_head.predictor.weight",
    } <= names


def test_rpn_losses_written_out(samples):
    torch.manual_seed(0)
    model = build_detector(small_config(overrides=EVERYTHING))
    rpn = model.proposal_generator
    maps = [torch.randn(2, 32, 24 // s, 32 // s) for s in (1, 2, 4, 8, 16)]
    anchors = rpn.anchor_generator(maps)
    logits, deltas = rpn.rpn_head(maps, [None] * 5)
    truth = [s["instances"]["gt_boxes"] for s in samples]
    sampled = rpn.sample(anchors, truth)
    result = rpn.losses(sampled, *gather_anchors(logits, deltas, sampled.at))
    objectness = distance = 0.0
    everything = torch.cat(anchors)
    for row, boxes in enumerate(truth):
        index, label = match(boxes, everything, thresholds=(0.3, 0.7), labels=(0, -1, 1), allow_low_quality=True)
        x = torch.cat([level[row] for level in logits])
        d = torch.cat([level[row] for level in deltas])
        for a in range(len(everything)):
            if label[a] >= 0:
                objectness += F.binary_cross_entropy_with_logits(x[a], label[a].float())
            if label[a] == 1:
                target = box_ops.encode(everything[a : a + 1], boxes[index[a]][None], (1, 1, 1, 1))
                distance += (d[a] - target[0]).abs().sum()
    normaliser = 100_000 * 2
    torch.testing.assert_close(result["loss_rpn_cls"], objectness / normaliser, rtol=1e-4, atol=0)
    torch.testing.assert_close(result["loss_rpn_loc"], distance / normaliser, rtol=1e-4, atol=0)
    assert distance > 0


@pytest.mark.parametrize("exact", [False, True], ids=["keep", "exact"])
@pytest.mark.parametrize("fmt", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_sampled_anchors_have_the_predictions_and_gradients_of_the_whole_maps(fmt, exact):
    torch.manual_seed(0)
    head = RPNHead(in_channels=6, anchors_per_cell=3).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    shapes = [(12, 16), (6, 8), (3, 4), (2, 2)]
    maps = [torch.randn(2, 6, *s).double().contiguous(memory_format=fmt).requires_grad_() for s in shapes]
    areas = [ValidArea.from_sizes([(h, w), (h - 1, max(w // 2, 1))], exact=exact) for h, w in shapes]
    everywhere = torch.arange(sum(h * w for h, w in shapes) * 3).flip(0)
    at = torch.stack([everywhere, everywhere.roll(17)])
    weights = torch.randn(2, len(everywhere), 5).double()
    results = []
    for predicted in (head.forward_sparse(maps, areas, at), gather_anchors(*head(maps, areas), at)):
        loss = (predicted[0] * weights[..., 0]).sum() + (predicted[1] * weights[..., 1:]).sum()
        results.append([*predicted, *torch.autograd.grad(loss, [*maps, *head.parameters()])])
    for mine, theirs in zip(*results):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bfloat16"])
def test_rpn_losses_do_not_depend_on_the_way_of_their_gradients(samples, monkeypatch, amp):
    model = build_detector(small_config())
    results = []
    for few in (True, False):
        monkeypatch.setattr(RPNHead, "prefers_sparse", lambda *given, few=few: few)
        torch.manual_seed(0)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            losses = model(samples)
        (losses["loss_rpn_cls"] + losses["loss_rpn_loc"]).backward()
        named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append({"loss": losses["loss_rpn_cls"].detach(), **named})
    assert results[0].keys() == results[1].keys()
    assert any(name.startswith("proposal_generator.rpn_head.conv") for name in results[0])
    for name, wanted in results[1].items():
        distance = (results[0][name] - wanted).norm() / wanted.norm().clamp(min=1e-12)
        assert distance < (0.05 if amp else 1e-4), name


def test_box_losses_written_out():
    predictor = build_detector(small_config()).roi_heads.box_predictor
    torch.manual_seed(0)
    scores, deltas = torch.randn(6, 4), torch.randn(6, 12)
    proposals = torch.tensor([[0.0, 0, 10, 10]] * 6) + torch.arange(6.0)[:, None]
    truth = proposals + torch.tensor([1.0, -1, 2, 3])
    classes = torch.tensor([0, 3, 2, 3, 1, 3])
    result = predictor.losses(scores, deltas, proposals, classes, truth)
    log_p = scores - scores.exp().sum(1, keepdim=True).log()
    expected_cls = -sum(log_p[i, c] for i, c in enumerate(classes)) / 6
    targets = box_ops.encode(proposals, truth, (10, 10, 5, 5))
    expected_reg = (
        sum((deltas[i, 4 * c : 4 * c + 4] - targets[i]).abs().sum() for i, c in enumerate(classes) if c < 3) / 6
    )
    torch.testing.assert_close(result["loss_cls"], expected_cls)
    torch.testing.assert_close(result["loss_box_reg"], expected_reg)


@pytest.mark.parametrize("gate", ["none", "se", "sp_se", "rg_se", "cbam"])
def test_a_training_step_reaches_every_parameter(gate, samples):
    torch.manual_seed(0)
    model = build_detector(small_config(gate))
    losses = model(samples)
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_images_without_ground_truth_or_proposals_keep_the_graph():
    torch.manual_seed(0)
    model = build_detector(small_config(overrides=("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 100_000)))
    losses = model([make_sample(64, 64, [])])
    assert losses["loss_cls"].item() == 0 and losses["loss_mask"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    (found,) = model([make_sample(64, 64, [])])
    assert {k: tuple(v.shape) for k, v in found["instances"].items()} == {
        "pred_boxes": (0, 4), "scores": (0,), "pred_classes": (0,), "pred_masks": (0, 64, 64)
    }  # fmt: skip


def lively_detector(gate: str, overrides: tuple = ()):
    """Random weights, but with scores that differ and boxes that move."""
    torch.manual_seed(1)
    model = build_detector(small_config(gate, overrides=("MODEL.RESNETS.NORM", "GN", *overrides))).eval()
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(60)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
        model.roi_heads.mask_head.predictor.weight.mul_(300)
    return model


@pytest.mark.parametrize("gate", ["none", "se", "sp_se", "rg_se", "cbam"])
def test_under_exact_padding_batch_mates_change_nothing(gate):
    small, large = make_sample(90, 123, [], seed=1), make_sample(160, 150, [], seed=2)

    def detect(model, batch):
        with torch.no_grad():
            return model(batch)[0]["instances"]

    model = lively_detector(gate, ("MODEL.GATE.PADDING", "exact"))
    alone, beside = detect(model, [small]), detect(model, [small, large])
    model.backbone.size_divisibility = 0
    unpadded = detect(model, [small])
    assert len(alone["scores"]) > 20
    for other in (beside, unpadded):
        assert torch.equal(other["pred_classes"], alone["pred_classes"])
        assert (other["pred_boxes"] - alone["pred_boxes"]).abs().max() < 1e-2
        assert (other["scores"] - alone["scores"]).abs().max() < 1e-4
    model = lively_detector(gate)
    alone, beside = detect(model, [small])["scores"], detect(model, [small, large])["scores"]
    assert len(alone) != len(beside) or (alone - beside).abs().max() > 1e-4  # under "keep" they do


def test_detections_are_scaled_to_the_original_image():
    model = lively_detector("none")
    sample = make_sample(96, 128, [])
    with torch.no_grad():
        (same,) = model([sample])
        (double,) = model([{**sample, "height": 192, "width": 256}])
    torch.testing.assert_close(double["instances"]["pred_boxes"], same["instances"]["pred_boxes"] * 2)
    assert double["instances"]["pred_masks"].shape[1:] == (192, 256)


def test_masks_can_be_put_into_the_image_later():
    model = lively_detector("none")
    sample = {**make_sample(96, 128, []), "height": 150, "width": 210}
    with torch.no_grad():
        now, later = model([sample])[0]["instances"], model.detect([sample])[0]["instances"]
    masks, size = later["box_masks"], later["image_size"]
    assert masks.shape[1:] == (28, 28) and size == (150, 210) and len(masks) > 20
    pasted = paste_detections(later)
    assert pasted.keys() == now.keys() == {"pred_boxes", "scores", "pred_classes", "pred_masks"}
    assert all(torch.equal(pasted[name], now[name]) for name in now)
    assert now["pred_masks"].any() and torch.equal(
        _paste_full_size(masks, later["pred_boxes"], *size), now["pred_masks"]
    )


def test_diverged_weights_are_an_error_in_training_and_in_evaluation(samples):
    model = build_detector(small_config())
    torch.nn.init.constant_(model.proposal_generator.rpn_head.anchor_deltas.bias, torch.nan)
    with pytest.raises(TrainingError, match="SOLVER.BASE_LR"):
        model(samples)
    with pytest.raises(WeightsError, match="TEST.PRECISION float32"):
        model.eval()(samples)


def test_other_parts_name_the_other_engine():
    with pytest.raises(ConfigError, match=r"MODEL.PROPOSAL_GENERATOR.NAME 'RRPN' is one of .*--engine detectron2"):
        build_detector(small_config(overrides=("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN")))
    with pytest.raises(ConfigError, match="MODEL.FPN.IN_FEATURES"):
        build_detector(small_config(overrides=("MODEL.FPN.IN_FEATURES", ["res2", "res4"])))


@pytest.mark.parametrize(
    ("section", "names", "message"),
    [
        ("ROI_HEADS", ["p3", "p2"], "strides .*each must be twice the one before"),
        ("ROI_HEADS", ["p2", "p4"], "strides .*each must be twice the one before"),
        ("RPN", ["p2", "p2", "p3", "p4", "p5"], "names a map twice"),
        ("RPN", [["p2"]], "must name maps of the backbone"),
    ],
)
def test_maps_that_do_not_make_a_pyramid_are_refused(section, names, message):
    with pytest.raises(ConfigError, match=message):
        build_detector(small_config(overrides=(f"MODEL.{section}.IN_FEATURES", names)))


@pytest.mark.parametrize(
    "layer", ["proposal_generator.rpn_head.objectness_logits", "roi_heads.box_predictor.cls_score"]
)
def test_results_that_are_not_finite_are_refused_not_empty(layer):
    """Weights are finite, and what comes of them is not: as an overflow in half precision."""
    detector = build_detector(small_config()).eval()
    detector.get_submodule(layer).register_forward_hook(lambda module, args, output: output * float("nan"))
    with pytest.raises(WeightsError, match=r"overflow in this precision \(TEST.PRECISION"):
        detector.detect([make_sample(64, 80, [[8, 8, 40, 44]])])
