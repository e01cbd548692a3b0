"""What holds of all RoI heads: fused, in bfloat16, without ground truth, beside batch mates, with other classes."""

from __future__ import annotations

import copy

import pytest
import torch

from se_det.config import load_config
from se_det.detection import build_detector
from se_det.detection.fuse import prepare_for_inference
from se_det.errors import ConfigError
from se_det.evaluation.test_time_augmentation import check_test_augmentation
from se_det.weights import load_weights

from ..integrations import roi_heads_cases as cases
from ..integrations.known_weights import image

NAMES = ["cascade", "keypoint", "point_rend"]


def instances(model: torch.nn.Module, *inputs: dict) -> list[dict]:
    with torch.no_grad():
        return [found["instances"] for found in model(list(inputs))]


@pytest.mark.parametrize("name", NAMES)
def test_fused_for_inference_it_gives_the_same(name: str):
    model = cases.our_detector(cases.CASES[name])
    [want], [got] = (instances(m, cases.inputs()[0]) for m in (model, prepare_for_inference(copy.deepcopy(model))))
    assert len(want["scores"]) >= 10
    assert torch.equal(got["pred_classes"], want["pred_classes"])
    torch.testing.assert_close(got["scores"], want["scores"], atol=1e-4, rtol=0)
    torch.testing.assert_close(got["pred_boxes"], want["pred_boxes"], atol=1e-2, rtol=0)
    if "pred_keypoints" in want:
        gap = (got["pred_keypoints"] - want["pred_keypoints"]).abs()
        assert (gap[..., :2] < 1e-2).float().mean() > 0.95 and gap[..., 2].max() < 1e-4  # of equal cells either may win
    if "pred_masks" in want:
        assert (got["pred_masks"] != want["pred_masks"]).float().mean() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_in_bfloat16_results_are_float32_and_near(name: str):
    model = cases.our_detector(cases.CASES[name])
    fast = prepare_for_inference(copy.deepcopy(model), precision="bfloat16")
    [want], [got] = instances(model, cases.inputs()[0]), instances(fast, cases.inputs()[0])
    assert all(value.dtype == torch.float32 for name, value in got.items() if value.is_floating_point())
    assert got["scores"][0] == pytest.approx(float(want["scores"][0]), abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_without_ground_truth_all_is_background(name: str):
    model = cases.our_detector(cases.CASES[name]).train()
    sample = cases.inputs()[0]
    truth = sample["instances"]
    empty = {key: value[:0] for key, value in truth.items() if key != "gt_masks"}
    empty["gt_masks"] = {
        key: value[:0] for key, value in truth["gt_masks"].items()
    }  # fmt: skip
    losses = model([{**sample, "instances": empty}])
    for key, loss in losses.items():
        assert loss.isfinite() and (loss == 0) == (key not in ("loss_rpn_cls",) and "loss_cls" not in key), key
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_under_exact_padding_batch_mates_change_nothing(name: str):
    model = cases.our_detector(cases.CASES[name], "MODEL.GATE.PADDING", "exact")
    small, large = {"image": image(90, 100, 1)}, {"image": image(160, 200, 2)}
    [alone], [beside, _] = instances(model, small), instances(model, small, large)
    assert len(alone["scores"]) >= 10 and torch.equal(alone["pred_classes"], beside["pred_classes"])
    torch.testing.assert_close(beside["scores"], alone["scores"], atol=1e-4, rtol=0)
    torch.testing.assert_close(beside["pred_boxes"], alone["pred_boxes"], atol=1e-2, rtol=0)
    if "pred_keypoints" in alone:
        torch.testing.assert_close(beside["pred_keypoints"], alone["pred_keypoints"], atol=1e-2, rtol=0)
    if "pred_masks" in alone:
        assert (beside["pred_masks"] != alone["pred_masks"]).float().mean() < 1e-3


def test_the_same_seed_gives_the_same_losses():
    model = cases.our_detector(cases.CASES["cascade"]).train()
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(model(cases.inputs()))
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_every_stage_of_a_cascade_takes_its_classes_by_name(tmp_path):
    old = cases.our_detector(cases.CASES["cascade"]).state_dict()
    names = [{"id": i + 1, "name": name} for i, name in enumerate("abcde")]
    torch.save({"engine": "builtin", "model": old, "categories": names}, tmp_path / "old.pth")
    cfg = load_config(cases.CASES["cascade"].config, cases.CASES["cascade"].overrides("MODEL.ROI_HEADS.NUM_CLASSES", 3))
    model = build_detector(cfg)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    load_weights(model, tmp_path / "old.pth", class_names=["d", "new", "b"])
    for stage in range(3):
        key = f"roi_heads.box_predictor.{stage}.cls_score.weight"
        taken = model.state_dict()[key]
        assert torch.equal(taken[[0, 2, 3]], old[key][[3, 1, 5]])
        assert torch.equal(taken[1], fresh[key][1])
        key = f"roi_heads.box_predictor.{stage}.bbox_pred.weight"
        assert torch.equal(model.state_dict()[key], old[key])
    key = "roi_heads.mask_head.predictor.weight"
    assert torch.equal(model.state_dict()[key][[0, 2]], old[key][[3, 1]])


@pytest.mark.parametrize(
    "keys, match",
    [
        (["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False], "CLS_AGNOSTIC_BBOX_REG True"),
        (["MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.5, 0.6)], "has 2 IOUS and 3 BBOX_REG_WEIGHTS"),
        (["MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.4]], r"IOU_THRESHOLDS is \[0.4\], and the first .* 0.5"),
        (["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", ((1.0,), (1.0,), (1.0,))], "four numbers a stage"),
    ],
)
def test_a_cascade_that_cannot_be_is_refused(keys, match):
    with pytest.raises(ConfigError, match=match):
        build_detector(load_config(cases.CASES["cascade"].config, keys))


def test_keypoints_are_scaled_to_the_original_image():
    model = cases.our_detector(cases.CASES["keypoint"])
    sample = {"image": image(96, 128, 1)}
    [same], [double] = instances(model, sample), instances(model, {**sample, "height": 192, "width": 384})
    factors = torch.tensor([3.0, 2.0, 1.0])
    torch.testing.assert_close(double["pred_keypoints"], same["pred_keypoints"] * factors)


def test_other_keypoints_start_fresh_and_the_rest_is_kept(tmp_path):
    case = cases.CASES["keypoint"]
    torch.save({"model": cases.our_detector(case).state_dict()}, tmp_path / "old.pth")
    keys = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 6
    report = load_weights(cases.our_detector(case, *keys), tmp_path / "old.pth")
    assert {name.rpartition(".")[0] for name in report.resized} == {"roi_heads.keypoint_head.score_lowres"}


def point_rend(*keys) -> torch.nn.Module:
    torch.manual_seed(1)
    return build_detector(load_config(cases.CASES["point_rend"].config, cases.CASES["point_rend"].overrides(*keys)))


@pytest.mark.parametrize("each_layer", [True, False])
def test_a_point_head_goes_on_with_classes_in_another_order(tmp_path, each_layer):
    """Its layers read the coarse masks of all classes: rows and columns of the weights move."""
    old = point_rend("MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER", each_layer)
    names = [{"id": i + 1, "name": name} for i, name in enumerate("abcde")]
    torch.save({"engine": "builtin", "model": old.state_dict(), "categories": names}, tmp_path / "old.pth")
    model = build_detector(load_config(
        cases.CASES["point_rend"].config,
        cases.CASES["point_rend"].overrides("MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER", each_layer),
    ))  # fmt: skip
    load_weights(model, tmp_path / "old.pth", class_names=list("edcba"), strict=True)
    maps, boxes = [torch.randn(1, 32, 40, 40)] * 4, [torch.tensor([[8.0, 8.0, 90.0, 70.0], [20.0, 5.0, 60.0, 120.0]])]
    one, other = (
        m.roi_heads.mask_head.probabilities(maps, boxes, classes)
        for m, classes in ((old, torch.tensor([1, 4])), (model, torch.tensor([3, 0])))
    )
    torch.testing.assert_close(other, one, atol=1e-5, rtol=0)
    assert one.std() > 0
    three = point_rend("MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER", each_layer)
    load_weights(three, tmp_path / "old.pth", class_names=["b", "new", "d"])
    weights = (m.roi_heads.mask_head.point_head.fc1.weight for m in (old, three))
    before, after = (weight[:, 32:, 0] for weight in weights)
    assert torch.equal(after[:, [0, 2]], before[:, [1, 3]]) and not torch.equal(after[:, 1], before[:, 2])


def test_coarse_masks_alone_and_another_name_for_them():
    model = point_rend("MODEL.ROI_MASK_HEAD.POINT_HEAD_ON", False, "MODEL.ROI_MASK_HEAD.NAME", "CoarseMaskHead")
    assert set(model.train()(cases.inputs())) >= {"loss_mask"} and model.roi_heads.mask_head.point_head is None
    with pytest.raises(ConfigError, match=r"POINT_HEAD.IN_FEATURES \['p6'\] must name some of"):
        point_rend("MODEL.POINT_HEAD.IN_FEATURES", ["p6"])
    with pytest.raises(ConfigError, match="POOLER_TYPE"):
        point_rend("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlignV2")


def test_test_time_augmentation_of_keypoints_is_refused():
    cfg = load_config(cases.CASES["keypoint"].config, ["TEST.AUG.ENABLED", True])
    with pytest.raises(ConfigError, match="keypoints are not augmented"):
        check_test_augmentation(cfg)
