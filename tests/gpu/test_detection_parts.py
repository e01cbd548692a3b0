"""RoIAlign, matching, sampling, NMS and masks, where the CPU's own ways are other code."""

from __future__ import annotations

import pytest
import torch
from torchvision import ops

from se_det.detection import boxes as box_ops
from se_det.detection.masks import crop_masks, paste_masks
from se_det.detection.matching import match, sample
from se_det.detection.pooler import ROIPooler
from tests.detection.conftest import make_sample
from tests.detection.test_matching import random_boxes
from tests.detection.test_roi_align import ODD, boxes
from tests.integrations.known_weights import samples

from .comparing import apart


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("size", [7, 14])
def test_pooling_from_a_pyramid_with_its_gradients(device, size, ratio):
    strides = (4, 8, 16, 32)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 8, 256 // s, 320 // s, generator=generator, dtype=torch.float64) for s in strides]
    rois = torch.cat([boxes(200, 256, 320), ODD * torch.tensor([1, 5, 5, 5, 5])]).double()
    of_image = [rois[rois[:, 0] == i, 1:] for i in (0, 1)]
    pooler = ROIPooler(output_size=size, strides=strides, sampling_ratio=ratio)
    leaves = {}
    for name, where, dtype in (("cpu", "cpu", torch.float64), ("device", device, torch.float32)):
        moved = [m.to(where, dtype).contiguous(memory_format=torch.channels_last).requires_grad_() for m in maps]
        pooled = pooler(moved, [b.to(where, dtype) for b in of_image])
        pooled.square().sum().backward()
        leaves[name] = [pooled, *(m.grad for m in moved)]
    # A level is a matter of rounding where a box is just as large as its limit: none of these is.
    for found, wanted in zip(leaves["device"], leaves["cpu"]):
        assert apart(found, wanted) < 1e-4


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("objects", [0, 1, 40])
def test_matching(device, objects, low_quality):
    truth = random_boxes(objects, size=60, seed=1)
    everything = random_boxes(5000, size=50, seed=2)
    how = {"thresholds": (0.3, 0.7), "labels": (0, -1, 1), "allow_low_quality": low_quality}
    index, label = (t.cpu() for t in match(truth.to(device), everything.to(device), **how))
    expected, labels = match(truth, everything, **how)
    assert torch.equal(label, labels)
    differ = index != expected  # of two objects that overlap a box equally, either may be found
    if objects:
        overlap = box_ops.pairwise_iou(truth, everything)
        at = torch.arange(len(everything))[differ]
        assert apart(overlap[index[differ], at], overlap[expected[differ], at]) < 1e-6
    assert differ.sum() <= 5


def test_sampling_takes_as_many_as_it_should(device):
    labels = torch.full((3, 1000), 0, device=device)
    labels[0, 10:400], labels[1, :20], labels[2, 5:] = 1, 1, -1
    at, filled = sample(labels, 256, 0.5)
    chosen = labels.gather(1, at)
    positives, negatives = (((chosen == v) & filled).sum(1).tolist() for v in (1, 0))
    assert positives == [128, 20, 0] and negatives == [128, 236, 5]
    assert not ((chosen == -1) & filled).any()
    for row, places in zip(at, filled):
        assert len(row[places].unique()) == int(places.sum())


@pytest.mark.parametrize("count", [800, 6000])  # below and above where torchvision's `batched_nms` changes its way
def test_nms_keeps_the_same(device, count):
    candidates = random_boxes(count, size=60, seed=3)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randperm(count, generator=generator).float()  # no two are equal
    groups = torch.randint(0, 5, (count,), generator=generator)
    kept = ops.batched_nms(candidates.to(device), scores.to(device), groups.to(device), 0.6).cpu()
    # Not by the shifted coordinates, whose rounding decides overlaps that are close to the threshold.
    expected = torch.cat([
        (at := torch.nonzero(groups == g)[:, 0])[ops.nms(candidates[at], scores[at], 0.6)] for g in range(5)
    ])  # fmt: skip
    assert abs(len(kept) - len(expected)) <= 2
    assert len(set(kept.tolist()) ^ set(expected.tolist())) <= 4
    assert torch.equal(scores[kept], scores[kept].sort(descending=True).values)


def test_pasted_masks(device):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(30, 28, 28, generator=generator)
    where = random_boxes(30, size=70, seed=4, extent=(160, 120))
    expected = paste_masks(masks, where, 120, 160)
    found = paste_masks(masks.to(device), where.to(device), 120, 160).cpu()
    assert found.shape == expected.shape and expected.any()
    assert (found != expected).float().mean() < 1e-5  # a probability of one half to the last bit


@pytest.mark.parametrize("given", ["polygons", "both"])
def test_mask_targets(device, given):
    """Whole ones: polygons are drawn by pycocotools in either case, bitmaps by RoIAlign."""
    instances = samples()[0]["instances"] if given == "polygons" else make_sample(
        96, 128, [[10, 20, 60, 70], [50, 5, 120, 90]]
    )["instances"]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    of = torch.tensor([0, 1, 1, 0, 1])
    seen = instances["gt_boxes"][of] + torch.rand(5, 4, generator=generator) * 6 - 3
    expected = crop_masks(instances["gt_masks"], of, seen, 28)
    found = crop_masks(instances["gt_masks"], of.to(device), seen.to(device), 28)
    assert found.device.type == device.type and expected.any() and not expected.all()
    assert (found.cpu() != expected).float().mean() < 1e-3
