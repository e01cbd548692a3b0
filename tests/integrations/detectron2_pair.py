"""The builtin detector and Detectron2's on the same weights and images, and how far apart their numbers are.

`python tests/integrations/detectron2_pair.py` prints the table of docs/checks.md; it needs Detectron2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from se_det.backbones.trunk import image_area
from se_det.config import load_config
from se_det.detection.build import build_detector
from tests.integrations.known_weights import SAMPLE_ALL, fill

GATES = ("none", "se", "sp_se", "rg_se", "cbam")


def make_pair(
    gate: str, *, masks: bool, overrides: Sequence[Any] = (), own_resnet: bool = False,
    config: str = "configs/mask_rcnn_r50_fpn.yaml",
) -> tuple[nn.Module, nn.Module]:  # fmt: skip
    """(ours, theirs): R50-FPN detectors with the same known weights, in evaluation mode.

    Args:
        own_resnet: give Detectron2's detector its own ResNet; only for gate "none".
    """
    from se_det.integrations.detectron2_peer import build_peer

    keys = ["MODEL.DEVICE", "cpu", "MODEL.GATE.NAME", gate, "MODEL.MASK_ON", masks, "TEST.DETECTIONS_PER_IMAGE", 100,
            *overrides]  # fmt: skip
    ours = fill(build_detector(load_config(config, keys)))
    if own_resnet:
        keys += ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"]
    return ours.eval(), build_peer(config, keys, ours.state_dict()).eval()


def to_detectron2(sample: dict[str, Any]) -> dict[str, Any]:
    from se_det.integrations.detectron2_peer import to_detectron2 as convert  # needs Detectron2

    return convert(sample)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value of `b`."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def gap_in_order(a: torch.Tensor, b: torch.Tensor, scores: torch.Tensor, tie: float = 1e-5) -> float:
    """The largest difference between the rows of `a` and `b`, where rows of equal `scores` may have changed places."""
    if len(a) != len(b):
        return float("inf")
    worst, start = 0.0, 0
    while start < len(a):
        end = start + 1
        while end < len(a) and scores[start] - scores[end] < tie:
            end += 1
        distances = torch.cdist(a[start:end].double(), b[start:end].double(), p=float("inf"))
        worst = max(worst, float(distances.min(1).values.max()), float(distances.min(0).values.max()))
        start = end
    return worst


@torch.no_grad()
def compare_inference(ours: nn.Module, theirs: nn.Module, samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Differences of features (relative), proposals and boxes (px), scores, and 1 - IoU of masks."""
    inputs = [to_detectron2(s) if "instances" in s else s for s in samples]
    images = theirs.preprocess_image(inputs)
    bottom_up = theirs.backbone.bottom_up(images.tensor)
    images = theirs.preprocess_image(inputs)  # again: a backbone uses the sizes once
    pyramid = theirs.backbone(images.tensor)
    x, sizes = ours.batch([s["image"] for s in samples])

    area = image_area(ours.backbone.padding, sizes)
    our_bottom_up, _ = ours.backbone.bottom_up.features(x, area)
    maps, areas = ours.backbone.features(x, area)
    found = {
        "features": max(relative(our_bottom_up[name], bottom_up[name]) for name in bottom_up),
        "FPN": max(relative(maps[name], pyramid[name]) for name in pyramid),
    }
    proposals, _ = theirs.proposal_generator(images, pyramid)
    our_proposals, _ = ours.proposal_generator(
        [maps[n] for n in ours.rpn_features], [areas[n] for n in ours.rpn_features], sizes
    )
    found["proposals px"] = max(
        gap_in_order(boxes, p.proposal_boxes.tensor, p.objectness_logits)
        for (boxes, _), p in zip(our_proposals, proposals, strict=True)
    )
    found |= {"boxes px": 0.0, "scores": 0.0, "masks 1-IoU": 0.0, "detections": 0}
    for a, b in zip(ours(samples), theirs(inputs), strict=True):
        a, b = a["instances"], b["instances"]
        if len(a["scores"]) != len(b) or not torch.equal(a["pred_classes"], b.pred_classes):
            found["boxes px"] = float("inf")
            continue
        found["detections"] += len(b)
        if not len(b):
            continue
        found["boxes px"] = max(found["boxes px"], gap_in_order(a["pred_boxes"], b.pred_boxes.tensor, b.scores))
        found["scores"] = max(found["scores"], float((a["scores"] - b.scores).abs().max()))
        if "pred_masks" in a:
            one, other = a["pred_masks"].flatten(1), b.pred_masks.flatten(1)
            union = (one | other).sum(1).clamp(min=1)
            iou = torch.where((one | other).any(1), (one & other).sum(1) / union, 1.0)
            found["masks 1-IoU"] = max(found["masks 1-IoU"], float(1 - iou.min()))
    return found


def compare_training(ours: nn.Module, theirs: nn.Module, samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Relative differences of the losses and of every parameter's gradient; both detectors must sample everything."""
    gradients, losses = [], []
    for model, inputs in ((ours, samples), (theirs, [to_detectron2(s) for s in samples])):
        model.train()
        model.zero_grad()
        if hasattr(model, "vis_period"):  # Detectron2's: it records its losses in an event storage
            from detectron2.utils.events import EventStorage

            with EventStorage():
                found = model(inputs)
        else:
            found = model(inputs)
        sum(found.values()).backward()
        losses.append({k: float(v.detach()) for k, v in found.items()})
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
        model.eval()
    one, other = gradients
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    largest = max(float(g.norm()) for g in other.values())
    return {
        "losses": max(abs(losses[0][k] - v) / max(abs(v), 1e-12) for k, v in losses[1].items()),
        # A gradient that is zero but for rounding has no relative difference.
        "gradients": max(
            float((one[k] - g).norm() / g.norm()) for k, g in other.items() if float(g.norm()) > 1e-6 * largest
        ),
    }


def main() -> None:
    """Print the table for COCO images; see the module."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--short-sides", type=int, nargs="+", default=[224, 800])
    parser.add_argument("--gates", nargs="+", default=GATES)
    parser.add_argument("--number", type=int, default=2)
    parser.add_argument("--config-file")
    parser.add_argument("--weights", help="trained weights of --config-file, compared on every image instead")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    from se_det.data import read_coco
    from se_det.data.augmentations import resize_and_flip
    from se_det.data.samples import TrainDataset
    from se_det.data.worker_loader import to_tensors

    if args.weights:
        for short_side in args.short_sides:
            dataset = read_coco(args.json, args.images)
            compare_trained(args.config_file, args.weights, dataset, short_side, args.overrides)
        return
    dataset = read_coco(args.json, args.images).drop_empty()
    print("| gate | model | short side | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (3 + len(COLUMNS)))
    for short_side in args.short_sides:
        augmentation = resize_and_flip(short_sides=(short_side,), max_size=1333, flip="none")
        source = TrainDataset([dataset], augmentations=augmentation, seed=0, format="RGB", masks=True)
        samples = [to_tensors(source[(0, i)]) for i in range(args.number)]
        for gate in args.gates:
            for masks in (False, True):
                overrides = [*SAMPLE_ALL, *args.overrides]
                ours, theirs = make_pair(gate, masks=masks, overrides=overrides, own_resnet=gate == "none")
                found = compare_inference(ours, theirs, samples) | compare_training(ours, theirs, samples)
                _print_row(f"{gate} | {'Mask' if masks else 'Faster'} | {short_side}", found)


def _print_row(title: str, found: dict[str, float]) -> None:
    values = " | ".join(str(found[c]) if c == "detections" else f"{found[c]:.1e}" for c in COLUMNS if c in found)
    print(f"| {title} | {values} |", flush=True)


def compare_trained(config: str, weights: str, dataset: Any, short_side: int, overrides: Sequence[Any]) -> None:
    """Print a row for trained weights, over all images of a data set, each alone."""
    from detectron2.modeling import build_model

    from se_det.data.samples import TestDataset
    from se_det.data.worker_loader import to_tensors
    from se_det.integrations import detectron2_engine
    from se_det.weights import load_weights

    keys = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *overrides]
    ours = build_detector(load_config(config, keys)).eval()
    theirs = build_model(load_config(config, keys, defaults=detectron2_engine.default_config())).eval()
    for model in (ours, theirs):
        load_weights(model, weights, strict=True)
    source = TestDataset(dataset, short_side=short_side, max_size=1333, format="RGB", method="pil")
    worst: dict[str, float] = {}
    for i in range(len(source)):
        for name, value in compare_inference(ours, theirs, [to_tensors(source[i])]).items():
            worst[name] = worst.get(name, 0) + value if name == "detections" else max(worst.get(name, 0), value)
    _print_row(f"{config}, trained, {len(source)} images at {short_side}", worst)


COLUMNS = ("features", "FPN", "proposals px", "boxes px", "scores", "masks 1-IoU", "detections", "losses", "gradients")

if __name__ == "__main__":
    main()
