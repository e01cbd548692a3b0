"""Detectors of torchvision and mmdetection: what ours finds with their weights, beside what theirs finds."""

from __future__ import annotations

import pytest
import torch
import torchvision.models.detection as theirs

from se_det.detection import build_detector
from se_det.errors import WeightsError
from se_det.packaged import packaged_folder
from se_det.weights import config_of_checkpoint, identify, load_weights
from se_det.weights.class_lists import read_categories
from se_det.weights.conversion import convert, write_weights
from se_det.weights.families.detectors import COCO_IDS, TORCHVISION_DETECTION

SIDE = 128  # a multiple of 64: theirs has other strides on the last map where its size was rounded

IMAGE = torch.randint(0, 256, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def random_model(name: str, classes: int):
    """Random weights whose features have some size, whose scores differ and whose boxes move."""
    torch.manual_seed(0)
    model = getattr(theirs, name)(
        weights=None, weights_backbone=None, num_classes=classes, min_size=SIDE, max_size=SIDE
    ).eval()
    with torch.no_grad():
        model.backbone.body.conv1.weight.mul_(0.05)
        for norm in [m for n, m in model.backbone.body.named_modules() if n.endswith("bn3")]:
            norm.weight.mul_(0.3)
    for layers in ((model.rpn.head.cls_logits, model.rpn.head.bbox_pred),
                   (model.roi_heads.box_predictor.cls_score, model.roi_heads.box_predictor.bbox_pred)):  # fmt: skip
        seen = {}
        hooks = [
            layer.register_forward_hook(lambda m, _, y, seen=seen: seen.setdefault(m, []).append(y)) for layer in layers
        ]
        with torch.no_grad():
            model([IMAGE / 255])
            for layer, hook, spread in zip(layers, hooks, (2.0, 0.5)):
                hook.remove()
                values = torch.cat([y.movedim(1, -1).flatten(0, -2) for y in seen[layer]])
                factor = spread / values.std(0).clamp(min=1e-6)
                layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
                layer.bias.copy_((layer.bias - values.mean(0)) * factor)
    return model


def detect_theirs(model):
    """Boxes, scores, labels, and the masks before they are put into the image."""
    masks = []
    if model.roi_heads.has_mask():
        model.roi_heads.mask_predictor.register_forward_hook(lambda *a: masks.append(a[2]))
    with torch.no_grad():
        (found,) = model([IMAGE / 255])
    probabilities = masks[0].sigmoid()[torch.arange(len(found["labels"])), found["labels"]] if masks else None
    return found["boxes"], found["scores"], found["labels"], probabilities


NAMES = ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]


# The others differ from it in what each brings alone, and take most of a minute together.
@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_the_same_is_found_as_by_torchvision(name, tmp_path):
    model = random_model(name, 6)
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    boxes, scores, labels, masks = detect_theirs(model)
    assert len(boxes) > 10 and len(labels.unique()) > 2
    cfg = config_of_checkpoint(tmp_path / "theirs.pth", ["MODEL.DEVICE", "cpu"])
    ours = build_detector(cfg).eval()
    report = load_weights(ours, tmp_path / "theirs.pth", strict=True)
    assert report.unexpected == [] and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 5
    with torch.no_grad():
        (found,) = ours.detect([{"image": IMAGE}])
    found = found["instances"]
    assert len(found["scores"]) == len(scores)
    torch.testing.assert_close(found["scores"], scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["pred_boxes"], boxes, atol=1e-2, rtol=0)
    assert torch.equal(found["pred_classes"] + 1, labels)
    if masks is not None:
        torch.testing.assert_close(
            found["box_masks"], masks[:, None] if found["box_masks"].ndim == 4 else masks, atol=1e-4, rtol=0
        )


def mmdetection_names() -> dict[str, tuple[int, ...]]:
    """Mask R-CNN R50-FPN as its configuration builds it (configs/_base_/models/mask-rcnn_r50_fpn.py): the names of the
    modules of ResNet, FPN, RPNHead, Shared2FCBBoxHead and FCNMaskHead."""
    names = {
        name.replace("body.", ""): tuple(tensor.shape)
        for name, tensor in theirs.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict().items()
        if ".body." in name
    }
    layers = {f"neck.lateral_convs.{k}.conv": (256, 256 * 2**k, 1, 1) for k in range(4)}
    layers |= {f"neck.fpn_convs.{k}.conv": (256, 256, 3, 3) for k in range(4)}
    layers |= {"rpn_head.rpn_conv": (256, 256, 3, 3), "rpn_head.rpn_cls": (3, 256, 1, 1),
               "rpn_head.rpn_reg": (12, 256, 1, 1), "roi_head.bbox_head.fc_cls": (81, 1024),
               "roi_head.bbox_head.fc_reg": (320, 1024), "roi_head.bbox_head.shared_fcs.0": (1024, 12544),
               "roi_head.bbox_head.shared_fcs.1": (1024, 1024), "roi_head.mask_head.conv_logits": (80, 256, 1, 1),
               "roi_head.mask_head.upsample": (256, 256, 2, 2)}  # fmt: skip
    layers |= {f"roi_head.mask_head.convs.{k}.conv": (256, 256, 3, 3) for k in range(4)}
    for name, shape in layers.items():
        names |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return names


def test_every_weight_of_mmdetections_mask_rcnn_is_loaded(tmp_path):
    tensors = {name: torch.zeros(shape) for name, shape in mmdetection_names().items()}
    torch.save({"state_dict": tensors, "meta": {"epoch": 12}}, tmp_path / "mask_rcnn.pth")
    file = identify(tmp_path / "mask_rcnn.pth")
    assert file.family == "mmdetection" and file.unknown_parts == ()
    cfg = config_of_checkpoint(tmp_path / "mask_rcnn.pth")
    assert cfg.MODEL.MASK_ON and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 80 and cfg.MODEL.RESNETS.DEPTH == 50
    # What Detectron2 has, too: aligned, unrounded, by the box's size.
    assert cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE == "ROIAlignV2" and not cfg.MODEL.ANCHOR_GENERATOR.ROUNDED
    report = load_weights(build_detector(cfg), file, strict=True)
    assert report.missing == report.unexpected == []


def test_torchvisions_91_classes_become_cocos_80(tmp_path):
    """Row k of theirs is COCO's id k, 0 the background; ten ids stand for no category."""
    head = "roi_heads.box_predictor"
    tensors = {"backbone.body.conv1.weight": torch.zeros(1), "backbone.fpn.inner_blocks.0.0.weight": torch.zeros(1)}
    tensors |= {f"{head}.cls_score.bias": torch.arange(91.0), f"{head}.cls_score.weight": torch.arange(91.0)[:, None],
                f"{head}.bbox_pred.bias": torch.arange(91.0).repeat_interleave(4),
                "roi_heads.mask_predictor.mask_fcn_logits.bias": torch.arange(91.0)}  # fmt: skip
    ours = TORCHVISION_DETECTION.unpack(tensors)
    assert ours[f"{head}.cls_score.bias"].tolist() == [*COCO_IDS, 0]
    assert ours[f"{head}.bbox_pred.bias"].tolist() == [k for k in COCO_IDS for _ in range(4)]
    assert ours["roi_heads.mask_predictor.mask_fcn_logits.bias"].tolist() == [*COCO_IDS]
    coco = [c["id"] for c in read_categories(packaged_folder("model_zoo"), TORCHVISION_DETECTION.classes(tensors))]
    assert (
        coco == list(COCO_IDS) and theirs.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][90] == "toothbrush"
    )


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_converted_detector_carries_its_config(tmp_path, ending):
    tensors = {name: torch.zeros(shape) for name, shape in mmdetection_names().items()}
    torch.save(tensors, tmp_path / "theirs.pth")
    write_weights(tmp_path / f"ours{ending}", convert(tmp_path / "theirs.pth"))
    cfg, before = (config_of_checkpoint(tmp_path / name) for name in (f"ours{ending}", "theirs.pth"))
    cfg.MODEL.WEIGHTS = before.MODEL.WEIGHTS
    assert cfg == before and identify(tmp_path / f"ours{ending}").facts == identify(tmp_path / "theirs.pth").facts
    with pytest.raises(WeightsError, match="is a detector of mmdetection: convert it to se_det"):
        convert(tmp_path / "theirs.pth", to="torchvision")
    with pytest.raises(WeightsError, match="Files of mmdetection are read, and not written"):
        convert(tmp_path / "theirs.pth", to="mmdetection")
