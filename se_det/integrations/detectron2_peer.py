"""Detectron2's detector on our weights and samples, to be measured and compared beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from ..config import load_config
from .detectron2 import follow_image_sizes
from .detectron2_engine import default_config


def build_peer(config_file: str, overrides: Sequence[Any], state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Detectron2's detector of `config_file`, on its device, with the weights of ours; in training mode."""
    model = build_model(load_config(config_file, list(overrides), defaults=default_config()))
    model.load_state_dict(dict(state), strict=True)
    return follow_image_sizes(model)


def peer_step(model: nn.Module, batch: Sequence[Mapping[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    """One step of its trainer."""
    with EventStorage():
        loss = sum(model(batch).values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def peer_optimizer(config_file: str, overrides: Sequence[Any], model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that its trainer would build."""
    return build_optimizer(load_config(config_file, list(overrides), defaults=default_config()), model)


def to_detectron2(sample: Mapping[str, Any]) -> dict[str, Any]:
    """One of our samples, its masks polygons, as Detectron2's mapper would give it."""
    given = {key: sample[key] for key in ("image", "height", "width", "image_id") if key in sample}
    if "proposals" in sample:
        found = sample["proposals"]
        given["proposals"] = Instances(
            tuple(sample["image"].shape[-2:]), proposal_boxes=Boxes(found["proposal_boxes"]),
            objectness_logits=found["objectness_logits"],
        )  # fmt: skip
    if "instances" not in sample:
        return given
    truth = sample["instances"]
    instances = Instances(tuple(sample["image"].shape[-2:]))
    instances.gt_boxes = Boxes(truth["gt_boxes"])
    instances.gt_classes = truth["gt_classes"]
    if "gt_keypoints" in truth:
        instances.gt_keypoints = Keypoints(truth["gt_keypoints"])
    if "gt_masks" in truth:
        masks = truth["gt_masks"]
        polygons: list[list[np.ndarray]] = [[] for _ in truth["gt_classes"]]
        start = 0
        for points, owner in zip(masks["polygon_points"].tolist(), masks["polygon_owner"].tolist(), strict=True):
            polygons[owner].append(masks["polygons"][start : start + points].numpy().ravel())
            start += points
        instances.gt_masks = PolygonMasks(polygons)
    return {**given, "instances": instances}
