"""RetinaNet and FCOS: padding, inference, losses. Their numbers beside Detectron2's: test_golden_families.py."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from se_det.config import load_config
from se_det.detection import dense
from se_det.detection.architectures.fcos import centreness_of
from se_det.detection.build import check_model
from se_det.detection.focal_loss import focal_loss
from se_det.detection.fuse import prepare_for_inference
from se_det.detection.registry import model_facts
from se_det.errors import ConfigError, WeightsError
from se_det.evaluation.validation_loss import losses_per_image
from se_det.layers.running_mean import RunningMean
from se_det.training.config_checks import check_training

from .conftest import make_sample
from .one_stage import CONFIGS, detector, keys


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1.0, 1.5), (0.5, 0.0)])
def test_the_focal_loss_is_torchvisions(alpha: float, gamma: float):
    logits = 4 * torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(100).view(2, 50) % 5 - 1  # ignored, three classes, background
    kept = labels >= 0
    targets = torch.nn.functional.one_hot(labels[kept], 4)[:, :3].float()
    expected = sigmoid_focal_loss(logits[kept], targets, alpha=alpha, gamma=gamma, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, labels, alpha=alpha, gamma=gamma), expected)


def test_centreness_is_the_formula():
    cells = torch.tensor([[16.0, 16, 24, 24], [8, 16, 16, 24]])  # centres (20, 20) and (12, 20)
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 30, 30]])
    torch.testing.assert_close(centreness_of(cells, boxes), torch.tensor([1.0, math.sqrt(2 / 18)]))


def test_the_moving_average_is_kept_in_training_alone_and_is_no_weight():
    mean = RunningMean(100)
    assert mean(torch.tensor(10.0)).item() == pytest.approx(91) and mean(torch.tensor(10.0)).item() == pytest.approx(
        82.9
    )
    mean.eval()
    assert mean(torch.tensor(10.0)).item() == pytest.approx(82.9) and mean.value.item() == pytest.approx(82.9)
    assert not mean.state_dict()


@pytest.mark.parametrize("section", CONFIGS)
def test_validation_losses_do_not_depend_on_the_order_of_images(section: str):
    model = detector(section)
    model.loss_normalizer.value.fill_(7)
    one, other = ([make_sample(64, 96, boxes)] for boxes in ([[8, 8, 60, 60]], [[20, 4, 90, 50], [2, 2, 30, 60]]))
    _, forward = losses_per_image(model, [one, other])
    _, backward = losses_per_image(model, [other, one])
    assert forward == backward[::-1] and forward[0] != forward[1]
    assert model.loss_normalizer.value.item() == 7


@pytest.mark.parametrize("section", CONFIGS)
def test_under_exact_padding_batch_mates_change_nothing(section: str):
    small, large = make_sample(90, 123, [[10, 20, 60, 70]], seed=1), make_sample(160, 150, [], seed=2)
    overrides = ("MODEL.GATE.NAME", "rg_se", "MODEL.RESNETS.NORM", "GN", f"MODEL.{section}.NORM", "GN")

    @torch.no_grad()
    def detect(model, batch):
        return model(batch)[0]["instances"]

    model = detector(section, *overrides, "MODEL.GATE.PADDING", "exact", lively=True).eval()
    alone, beside = detect(model, [small]), detect(model, [small, large])
    (_, losses), (_, losses_beside) = (losses_per_image(model, [batch]) for batch in ([small], [small, large]))
    model.backbone.size_divisibility = 0
    unpadded = detect(model, [small])
    assert len(alone["scores"]) > 20
    for other in (beside, unpadded):
        assert torch.equal(other["pred_classes"], alone["pred_classes"])
        assert (other["pred_boxes"] - alone["pred_boxes"]).abs().max() < 1e-2
        assert (other["scores"] - alone["scores"]).abs().max() < 1e-4
    # The other image has no object: what is on objects is that of the image alone, whatever lies around it.
    assert losses_beside[0][1] == pytest.approx(losses[0][1], rel=1e-4) and losses[0][1] > 0
    model = detector(section, *overrides, lively=True).eval()
    alone, beside = detect(model, [small])["scores"], detect(model, [small, large])["scores"]
    assert len(alone) != len(beside) or (alone - beside).abs().max() > 1e-4  # under "keep" they do


@pytest.mark.parametrize(("section", "norm"), [("RETINANET", ""), ("RETINANET", "BN"), ("FCOS", "GN")])
def test_prepared_for_inference_it_gives_the_same(section: str, norm: str):
    model = detector(section, f"MODEL.{section}.NORM", norm, lively=True).eval()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.8, 1.2)
    sample = make_sample(96, 128, [])
    fast = prepare_for_inference(copy.deepcopy(model))
    half = prepare_for_inference(copy.deepcopy(model), precision="bfloat16")
    with torch.no_grad():
        want, got, rough = (one([sample])[0]["instances"] for one in (model, fast, half))
    assert len(want["scores"]) > 20 and torch.equal(got["pred_classes"], want["pred_classes"])
    assert (got["scores"] - want["scores"]).abs().max() < 1e-4
    assert (got["pred_boxes"] - want["pred_boxes"]).abs().max() < 1e-2
    assert rough["scores"].dtype == rough["pred_boxes"].dtype == torch.float32
    assert abs(rough["scores"][:20].mean() - want["scores"][:20].mean()) < 0.05


@pytest.mark.parametrize("section", CONFIGS)
def test_a_step_reaches_every_parameter_and_an_image_without_objects_keeps_the_graph(section: str):
    model = detector(section, f"MODEL.{section}.NORM", "BN")
    for boxes in ([[10, 20, 60, 70], [50, 5, 120, 90]], []):
        model.zero_grad(set_to_none=True)
        losses = model([make_sample(96, 128, boxes), make_sample(64, 80, [], seed=1)])
        assert all(torch.isfinite(value) for value in losses.values())
        sum(losses.values()).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert losses[list(losses)[1]].item() == 0


@pytest.mark.parametrize("many", [0, 1 << 14])
@pytest.mark.parametrize("section", CONFIGS)
def test_the_best_of_a_level_are_those_of_all_its_predictions(section: str, many: int, monkeypatch):
    monkeypatch.setattr(dense, "MANY", many)
    key = {"RETINANET": "TOPK_CANDIDATES_TEST", "FCOS": "PRE_NMS_TOPK_TEST"}[section]
    model = detector(section, f"MODEL.{section}.{key}", 40)
    random = torch.Generator().manual_seed(0)
    logits, middle = torch.randn(300, 3, generator=random), torch.randn(300, generator=random)
    middle = middle if section == "FCOS" else None
    outside = torch.arange(300) % 3 == 0
    want = logits.sigmoid() if middle is None else (logits.sigmoid() * middle.sigmoid()[:, None]).sqrt()
    want = want.masked_fill(outside[:, None], -1).flatten().sort(descending=True)
    for count, threshold in ((40, 0.05), (int((want.values > 0.85).sum()), 0.85)):
        model.score_threshold = threshold
        scores, anchors, classes = model._best(logits, middle, outside)
        assert 0 < len(scores) == min(count, 40)
        torch.testing.assert_close(scores, want.values[: len(scores)], rtol=1e-6, atol=0)
        assert torch.equal(anchors * 3 + classes, want.indices[: len(scores)])


def test_predictions_that_are_not_finite_are_refused():
    model = detector("RETINANET").eval()
    model.head.cls_score.register_forward_hook(lambda module, args, output: output * float("nan"))
    with torch.no_grad(), pytest.raises(WeightsError, match=r"overflow in this precision \(TEST.PRECISION"):
        model.detect([make_sample(64, 80, [])])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.MASK_ON", True), r"MODEL.MASK_ON is True.*RetinaNet makes no masks: set MODEL.MASK_ON False"),
        (("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "l3"), "MODEL.RETINANET.BBOX_REG_LOSS_TYPE 'l3' is unknown"),
        (("MODEL.RETINANET.IOU_LABELS", [0, 1]), "MODEL.RETINANET.IOU_LABELS must be one more"),
        (("MODEL.RETINANET.IN_FEATURES", ["p2", "p3"]), "MODEL.RETINANET.IN_FEATURES .* must name maps"),
        (("MODEL.RETINANET.PRIOR_PROB", 1.0), "MODEL.RETINANET.PRIOR_PROB must be between"),
        (("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4"], "MODEL.FPN.IN_FEATURES", ["res3", "res4"]), "lacks res5"),
        (("MODEL.FPN.TOP_BLOCK", "p8"), "MODEL.FPN.TOP_BLOCK 'p8' is unknown"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(overrides: tuple, message: str):
    with pytest.raises(ConfigError, match=message):
        detector("RETINANET", *overrides)


def test_proposals_of_windows_are_not_merged_and_refused():
    with pytest.raises(ConfigError, match=r"TEST.TILE.SIZE is 100, .* Set TEST.TILE.SIZE 0"):
        check_model(load_config("configs/rpn_se_r50_fpn.yaml", ["TEST.TILE.SIZE", 100]))


def test_facts_are_those_of_the_architecture():
    cfg = load_config(CONFIGS["RETINANET"], keys("RETINANET", "MODEL.RETINANET.NORM", "SyncBN"))
    facts = model_facts(cfg)
    assert facts.class_keys == ("MODEL.RETINANET.NUM_CLASSES",) and facts.tasks(cfg) == ("bbox",)
    check_model(cfg)
    with pytest.raises(ConfigError, match="MODEL.RETINANET.NORM SyncBN works on GPUs only"):
        check_training(cfg, 1)
    assert model_facts(load_config(CONFIGS["FCOS"])).class_keys == ("MODEL.FCOS.NUM_CLASSES",)


def test_what_a_name_of_a_backbone_has_above_p5():
    assert detector("RETINANET").backbone.top_block.in_feature == "res5"
    assert detector("FCOS").backbone.top_block.in_feature == "p5"
    model = detector("FCOS", "MODEL.BACKBONE.NAME", "rg_se_mobilenet_v1", "MODEL.GATE.NAME", "none",
                     "MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256)  # fmt: skip
    assert model.backbone.strides == {f"p{level}": 2**level for level in range(3, 8)}
