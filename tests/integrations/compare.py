"""What two engines' models give on the same weights and images, as plain dicts, and how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from se_det.detection.rcnn import Detector

from .detectron2_pair import gap_in_order, to_detectron2

Numbers = dict[str, np.ndarray]
# Fields of Detectron2's Instances, and what they are called here.
FIELDS = {
    "pred_boxes": "boxes", "proposal_boxes": "boxes", "scores": "scores", "objectness_logits": "scores",
    "pred_classes": "classes", "pred_masks": "masks", "pred_keypoints": "keypoints",
}  # fmt: skip


@torch.no_grad()
def outputs(model: nn.Module, samples: Sequence[Mapping[str, Any]]) -> Numbers:
    """What a model in evaluation mode gives: "<image>/<kind>/<field>" to values."""
    ours = isinstance(model, Detector)
    found: Numbers = {}
    for number, output in enumerate(model(samples if ours else [to_detectron2(s) for s in samples])):
        for kind, values in output.items():
            if torch.is_tensor(values):  # sem_seg
                found[f"{number}/{kind}"] = values.numpy()
            elif isinstance(values, tuple):  # panoptic_seg: ids, and what they are
                found[f"{number}/{kind}"] = values[0].numpy()
                found[f"{number}/{kind}/classes"] = np.array([[s["id"], s["category_id"]] for s in values[1]])
            else:
                fields = values if isinstance(values, Mapping) else values.get_fields()
                for name, value in fields.items():
                    if name in FIELDS:
                        value = getattr(value, "tensor", value)
                        found[f"{number}/{kind}/{FIELDS[name]}"] = value.numpy()
    return found


def training(model: nn.Module, samples: Sequence[Mapping[str, Any]]) -> Numbers:
    """Losses "loss/<name>" and the norms of the gradients "gradient/<parameter>" of a step."""
    gradients, losses = step(model, samples)
    found = {f"loss/{name}": np.float64(value) for name, value in losses.items()}
    return found | {f"gradient/{name}": np.float64(float(g.double().norm())) for name, g in gradients.items()}


def step(
    model: nn.Module, samples: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:  # fmt: skip
    """Gradients and losses by name; the model is in evaluation mode afterwards."""
    model.train()
    model.zero_grad()
    if isinstance(model, Detector):
        found = model(samples)
    else:
        from detectron2.utils.events import EventStorage

        with EventStorage():
            found = model([to_detectron2(s) for s in samples])
    sum(found.values()).backward()
    model.eval()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients, {name: float(value.detach()) for name, value in found.items()}


def output_gaps(ours: Numbers, theirs: Numbers) -> dict[str, float]:
    """The largest differences of boxes (px), scores, masks (1 - IoU, but for a pixel), keypoints (px), maps, and how
    many objects were compared. Detections of equal scores may have changed places."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    gaps: dict[str, float] = {"objects": 0}
    for key, b in theirs.items():
        a, (*path, name) = ours[key], key.split("/")
        if a.shape != b.shape:
            gaps[name] = float("inf")
        elif name == "boxes" or name == "keypoints":
            scores = torch.from_numpy(theirs["/".join([*path, "scores"])])
            one, other = (torch.from_numpy(x).flatten(1) for x in (a, b))
            gaps[name] = max(gaps.get(name, 0), gap_in_order(one, other, scores) if len(b) else 0)
            gaps["objects"] += len(b) if name == "boxes" else 0
        elif name == "masks":
            # A pixel of a mask may be at the threshold but for rounding: one had 0.500002.
            wrong = np.maximum((a != b).sum((1, 2)) - 1, 0) / np.maximum((a | b).sum((1, 2)), 1)
            gaps[name] = max(gaps.get(name, 0), float(wrong.max()) if len(wrong) else 0)
        elif b.dtype.kind in "iu":
            gaps[name] = max(gaps.get(name, 0), float((a != b).mean()) if a.size else 0)
        else:
            gaps[name] = max(gaps.get(name, 0), float(np.abs(a - b).max()) if a.size else 0)
    return gaps


def training_gaps(ours: nn.Module, theirs: nn.Module, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Relative differences of the losses and of every parameter's gradient, at most."""
    (one, our_losses), (other, losses) = step(ours, samples), step(theirs, samples)
    assert our_losses.keys() == losses.keys(), our_losses.keys() ^ losses.keys()
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    largest = max(float(g.norm()) for g in other.values())
    # A gradient that is zero but for rounding has no relative difference.
    telling = {name: g for name, g in other.items() if float(g.norm()) > 1e-6 * largest}
    return {
        "losses": max(abs(our_losses[name] - value) / max(abs(value), 1e-12) for name, value in losses.items()),
        "gradients": max(float((one[name] - g).norm() / g.norm()) for name, g in telling.items()),
    }
