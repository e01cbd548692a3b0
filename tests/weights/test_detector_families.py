"""Detectors of torchvision and mmdetection: what ours finds with their weights, beside what theirs finds."""

from __future__ import annotations

import pytest
import torch
import torchvision.models.detection as theirs

from se_det.detection import build_detector
from se_det.weights import config_of_checkpoint, load_weights

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
        hooks = [layer.register_forward_hook(lambda m, _, y: seen.setdefault(m, []).append(y)) for layer in layers]
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


@pytest.mark.parametrize("name", NAMES)
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
