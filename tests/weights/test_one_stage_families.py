"""One-stage detectors of torchvision and mmdetection: what ours finds with their weights, beside what theirs finds."""

from __future__ import annotations

import pytest
import torch
import torchvision.models.detection as theirs

from se_det.detection import build_detector
from se_det.weights import config_of_checkpoint, identify, load_weights
from se_det.weights.families.detectors import COCO_IDS

SIDE = 128  # see test_detector_families.py
IMAGE = torch.randint(0, 256, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def random_model(name: str, classes: int):
    """Random weights whose scores differ and whose boxes move, some of them beyond the image."""
    torch.manual_seed(0)
    model = getattr(theirs, name)(
        weights=None, weights_backbone=None, num_classes=classes, min_size=SIDE, max_size=SIDE
    ).eval()
    parts = model.head.classification_head, model.head.regression_head
    layers = [parts[0].cls_logits, parts[1].bbox_reg]
    with torch.no_grad():
        model.backbone.body.conv1.weight.mul_(0.05)
        for norm in [m for n, m in model.backbone.body.named_modules() if n.endswith("bn3")]:
            norm.weight.mul_(0.3)
        for part in parts:
            for layer in part.conv.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight)
                if isinstance(layer, torch.nn.GroupNorm):
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.normal_(0, 0.1)
        for layer, spread, mean in zip(layers, (1.5, 0.6), (-2.0, 0.5)):
            seen: list[torch.Tensor] = []
            hook = layer.register_forward_hook(lambda m, _, y, seen=seen: seen.append(y))
            model([IMAGE / 255])
            hook.remove()
            values = torch.cat([y.movedim(1, -1).flatten(0, -2) for y in seen])
            factor = spread / values.std(0).clamp(min=1e-6)
            layer.weight.mul_(factor.view(-1, 1, 1, 1))
            layer.bias.copy_((layer.bias - values.mean(0)) * factor + mean)
    return model


@pytest.mark.parametrize(
    ("name", "top", "norm"),
    [
        ("fcos_resnet50_fpn", "p6p7_p5", "GN"),
        ("retinanet_resnet50_fpn_v2", "p6p7_res5", "GN"),
        pytest.param("retinanet_resnet50_fpn", "p6p7_p5", "", marks=pytest.mark.slow),
    ],
)
def test_the_same_is_found_as_by_torchvision(name, top, norm, tmp_path):
    model = random_model(name, 6)
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    with torch.no_grad():
        (expected,) = model([IMAGE / 255])
    cfg = config_of_checkpoint(tmp_path / "theirs.pth", ["MODEL.DEVICE", "cpu"])
    keys = cfg.MODEL.FCOS if name.startswith("fcos") else cfg.MODEL.RETINANET
    assert (6, 4, norm, top) == (keys.NUM_CLASSES, keys.NUM_CONVS, keys.NORM, cfg.MODEL.FPN.TOP_BLOCK)
    ours = build_detector(cfg).eval()
    report = load_weights(ours, tmp_path / "theirs.pth", strict=True)
    assert report.missing == [] and all("loss_normalizer" in key for key in report.unexpected)
    with torch.no_grad():
        found = ours.detect([{"image": IMAGE}])[0]["instances"]
    inside = (expected["boxes"][:, 2:] > expected["boxes"][:, :2]).all(1)  # ours drops empty boxes
    assert inside.sum() > 50 and len(expected["labels"].unique()) > 3
    assert (expected["boxes"] == 0).any()  # some were cut off
    torch.testing.assert_close(found["scores"], expected["scores"][inside], atol=1e-4, rtol=0)
    torch.testing.assert_close(found["pred_boxes"], expected["boxes"][inside], atol=1e-2, rtol=0)
    assert torch.equal(found["pred_classes"], expected["labels"][inside])


def test_torchvisions_first_names_and_its_91_classes(tmp_path):
    """The published RetinaNet was written before towers and pyramid had a level more in their names."""
    model = theirs.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    logits = model.head.classification_head.cls_logits
    with torch.no_grad():
        logits.bias.copy_(torch.arange(9.0).repeat_interleave(91) * 100 + torch.arange(91.0).repeat(9))
    new = model.state_dict()
    old = {}
    for key, tensor in new.items():
        parts = key.split(".")
        if "conv" in parts and parts[0] == "head":
            parts = [*parts[:3], str(2 * int(parts[3])), parts[-1]]
        if "inner_blocks" in parts or "layer_blocks" in parts:
            del parts[4]
        old[".".join(parts)] = tensor
    assert "head.classification_head.conv.6.bias" in old and "backbone.fpn.layer_blocks.2.weight" in old
    files = {}
    for name, tensors in (("old", old), ("new", new)):
        torch.save(tensors, tmp_path / f"{name}.pth")
        files[name] = identify(tmp_path / f"{name}.pth")
    assert files["old"].tensors.keys() == files["new"].tensors.keys()
    assert all(torch.equal(tensor, files["new"].tensors[key]) for key, tensor in files["old"].tensors.items())
    assert [category["id"] for category in files["old"].extra["categories"]] == list(COCO_IDS)
    # Theirs counts a cell's anchors by ratio and then size, ours by size and then ratio.
    rows = [100 * (3 * ratio + size) + number for size in range(3) for ratio in range(3) for number in COCO_IDS]
    assert files["old"].tensors["head.cls_score.bias"].tolist() == rows


def test_every_weight_of_mmdetections_retinanet_is_loaded(tmp_path):
    """configs/_base_/models/retinanet_r50_fpn.py: the names of the modules of ResNet, FPN and RetinaHead."""
    tensors = {
        name.replace("body.", ""): tensor
        for name, tensor in theirs.retinanet_resnet50_fpn(weights=None, weights_backbone=None).state_dict().items()
        if ".body." in name
    }
    shapes = {f"neck.lateral_convs.{k}.conv": (256, 512 * 2**k, 1, 1) for k in range(3)}
    shapes |= {f"neck.fpn_convs.{k}.conv": (256, 2048 if k == 3 else 256, 3, 3) for k in range(5)}
    shapes |= {f"bbox_head.{kind}_convs.{k}.conv": (256, 256, 3, 3) for kind in ("cls", "reg") for k in range(4)}
    shapes |= {"bbox_head.retina_cls": (9 * 80, 256, 3, 3), "bbox_head.retina_reg": (36, 256, 3, 3)}
    for name, shape in shapes.items():
        tensors |= {f"{name}.weight": torch.zeros(shape), f"{name}.bias": torch.zeros(shape[0])}
    tensors["bbox_head.retina_reg.bias"] = torch.arange(36.0)
    torch.save({"state_dict": tensors, "meta": {}}, tmp_path / "retinanet.pth")
    file = identify(tmp_path / "retinanet.pth")
    assert file.family == "mmdetection_retinanet" and file.unknown_parts == ()
    cfg = config_of_checkpoint(tmp_path / "retinanet.pth")
    assert (cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CONVS) == (80, 4)
    model = build_detector(cfg)
    report = load_weights(model, file, strict=True)
    assert report.missing == report.unexpected == []
    order = [4 * (3 * ratio + size) + side for size in range(3) for ratio in range(3) for side in range(4)]
    assert model.head.bbox_pred.bias.tolist() == order
    # P7 is made of P6 as it is.
    top = model.backbone.top_block
    with torch.no_grad():
        top.p6.bias.fill_(-1)
        top.p7.weight.fill_(1)
        p6, p7 = top(torch.zeros(1, 2048, 4, 4), None)[0]
        assert (p6 == -1).all() and (p7 == -256 * 4).all()
