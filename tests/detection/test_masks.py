"""Masks cut and pasted, against pycocotools instance by instance and grid_sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from se_det.detection import build_detector, pooler
from se_det.detection.masks import _paste_full_size, crop_masks, instances_with_mask, paste_masks
from se_det.detection.pooler import ROIPooler

from .conftest import make_sample, no_masks, small_config


def test_polygons_are_filled_as_instance_by_instance():
    rng = np.random.default_rng(0)
    polygons = [[rng.uniform(0, 60, (5, 2)), rng.uniform(20, 80, (7, 2))], [rng.uniform(0, 90, (4, 2))]]
    masks = no_masks(90, 90)
    flat = [p for instance in polygons for p in instance]
    masks["polygons"] = torch.from_numpy(np.concatenate(flat))
    masks["polygon_points"] = torch.tensor([len(p) for p in flat])
    masks["polygon_owner"] = torch.tensor([0, 0, 1])
    boxes = torch.tensor([[5.0, 5, 70, 50], [0, 0, 90, 90], [10, 20, 33.5, 80]])
    instances = torch.tensor([1, 0, 0])
    result = crop_masks(masks, instances, boxes, 28)
    for row, box, instance in zip(result, boxes.double().numpy(), instances):
        size = box[2:] - box[:2]
        moved = [((p - box[:2]) * 28 / size).reshape(-1).tolist() for p in polygons[instance]]
        expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(moved, 28, 28)))
        assert np.array_equal(row.numpy(), expected.astype(bool))
        assert 0 < expected.sum() < 28 * 28


def test_a_file_of_both_kinds_reads_each_by_its_own():
    masks = no_masks(40, 40)
    masks["bitmaps"] = torch.zeros(1, 40, 40, dtype=torch.uint8)
    masks["bitmaps"][0, 10:20, 10:30] = 1
    masks["bitmap_owner"] = torch.tensor([1])
    masks["polygons"] = torch.tensor([[10.0, 10], [30, 10], [30, 20], [10, 20]], dtype=torch.float64)
    masks["polygon_points"], masks["polygon_owner"] = torch.tensor([4]), torch.tensor([0])
    boxes = torch.tensor([[10.0, 5, 30, 25]] * 2)
    polygon, bitmap = crop_masks(masks, torch.tensor([0, 1]), boxes, 28)
    expected = torch.zeros(28, 28, dtype=torch.bool)
    expected[7:21] = True
    assert torch.equal(bitmap, expected) and torch.equal(polygon, expected)
    assert crop_masks(masks, torch.zeros(0, dtype=torch.int64), boxes[:0], 28).shape == (0, 28, 28)


def test_pasting_is_bilinear_sampling_at_pixel_centres():
    torch.manual_seed(0)
    probabilities = torch.rand(6, 28, 28)
    boxes = torch.tensor([[3.2, 4.7, 33.1, 40.9], [0, 0, 64, 48], [60, 40, 64, 48], [10, 10, 10.5, 40], [5, 5, 6, 6],
                          [-5, -9, 20, 17]])  # fmt: skip
    ys, xs = torch.arange(48) + 0.5, torch.arange(64) + 0.5
    y = (ys - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    x = (xs - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, 48, -1), y[:, :, None].expand(-1, -1, 64)], -1)
    expected = F.grid_sample(probabilities[:, None], grid, align_corners=False)[:, 0]
    result = paste_masks(probabilities, boxes, 48, 64)
    clear = (expected - 0.5).abs() > 1e-5
    assert torch.equal(result[clear], (expected >= 0.5)[clear]) and clear.float().mean() > 0.999
    assert torch.equal(_paste_full_size(probabilities, boxes, 48, 64), result)
    assert paste_masks(probabilities[:0], boxes[:0], 48, 64).shape == (0, 48, 64)
    assert not paste_masks(probabilities[:1], torch.tensor([[7.5, 3, 7.5, 9]]), 48, 64).any()  # a box without area


def test_pooling_reads_each_box_from_its_level():
    pooler = ROIPooler(output_size=2, strides=(4, 8, 16, 32))
    boxes = torch.tensor([[0.0, 0, s, s] for s in (20, 111, 112, 223, 224, 447, 448, 900)])
    assert pooler.levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    maps = [torch.full((2, 1, 1024 // s, 1024 // s), float(s)) for s in (4, 8, 16, 32)]
    maps[0][1] = 5.0
    pooled = pooler(maps, [boxes, boxes[:1]])
    assert pooled.flatten(1).amax(1).tolist() == pytest.approx([4, 4, 8, 8, 16, 16, 32, 32, 5], rel=1e-5)
    assert pooler(maps, [boxes[:0], boxes[:0]]).shape == (0, 1, 2, 2)


def test_an_instance_without_a_mask_trains_its_box_alone(monkeypatch):
    """The mask loss sees the positive boxes of the others only, and none at all where none has a mask."""
    detector = build_detector(small_config(masks=True)).train()
    sample = make_sample(96, 128, [[10, 20, 60, 70], [50, 5, 120, 90], [5, 5, 40, 40]])
    masks = sample["instances"]["gt_masks"]
    masks["bitmaps"], masks["bitmap_owner"] = masks["bitmaps"][:0], masks["bitmap_owner"][:0]
    assert instances_with_mask(masks, 3).tolist() == [False, True, True]
    seen = []
    loss = detector.roi_heads.mask_head.loss

    def watched(x, classes, targets):
        seen.append((classes, targets))
        return loss(x, classes, targets)

    monkeypatch.setattr(detector.roi_heads.mask_head, "loss", watched)
    torch.manual_seed(0)
    losses = detector([sample])
    ((classes, targets),) = seen
    # Of the class of each instance: 0 is that of the one without a mask.
    assert set(classes.tolist()) == {1, 2} and targets.flatten(1).any(1).all()
    assert torch.isfinite(sum(losses.values()))
    sample["instances"]["gt_masks"] = no_masks(96, 128)
    assert detector([sample])["loss_mask"] == 0 and len(seen[1][0]) == 0


@pytest.mark.parametrize("lacking", [False, True])
def test_losses_do_not_depend_on_who_counts_the_boxes_of_a_level(lacking, monkeypatch):
    """A device's way, where all that the host must know of the samples is asked for at once, on this CPU."""
    cfg = small_config(masks=True)
    samples = [make_sample(96, 128, [[10, 20, 60, 70], [50, 5, 120, 90]], seed=s) for s in (0, 1)]
    if lacking:  # an instance without a mask
        samples[1]["instances"]["gt_masks"].update(no_masks(96, 128))
        del samples[0]["instances"]["gt_masks"]["bitmaps"], samples[0]["instances"]["gt_masks"]["bitmap_owner"]
        samples[0]["instances"]["gt_masks"].update(
            bitmaps=no_masks(96, 128)["bitmaps"], bitmap_owner=no_masks(96, 128)["bitmap_owner"]
        )
    found = []
    for asks in (False, True):
        if asks:
            monkeypatch.setattr(pooler, "has_fast_path", lambda x: False)
        torch.manual_seed(0)
        detector = build_detector(cfg).train()
        torch.manual_seed(1)
        losses = detector(samples)
        sum(losses.values()).backward()
        found.append({**losses, **{n: p.grad for n, p in detector.named_parameters() if p.grad is not None}})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5 * float(value.detach().abs().max()))
