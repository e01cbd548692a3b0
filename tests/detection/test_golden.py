"""The builtin detector against what Detectron2 computed; see tests/integrations/make_golden.py for how it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from se_det.config import load_config
from se_det.detection.build import build_detector

from ..integrations.detectron2_pair import GATES, gap_in_order
from ..integrations.known_weights import SAMPLE_ALL, SLIM, fill, samples
from ..integrations.make_golden import DETECTIONS, PROPOSALS, spread

GOLDEN = Path(__file__).parent / "golden"


def detector(gate: str, *overrides):
    keys = [*SLIM, "MODEL.GATE.NAME", gate, "TEST.DETECTIONS_PER_IMAGE", DETECTIONS, *overrides]
    return fill(build_detector(load_config("configs/mask_rcnn_r50_fpn.yaml", keys)))


@pytest.fixture(params=GATES)
def case(request):
    with np.load(GOLDEN / f"mask_rcnn_{request.param}.npz") as file:
        return request.param, dict(file)


def test_maps_proposals_and_detections_are_detectron2s(case):
    gate, golden = case
    model = detector(gate).eval()
    with torch.no_grad():
        x, sizes = model.batch([s["image"] for s in samples()])
        maps, areas = model.backbone.features(x)
        for name, values in maps.items():
            expected = golden[f"map/{name}"]
            np.testing.assert_allclose(spread(values), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        proposals, _ = model.proposal_generator(
            [maps[n] for n in model.rpn_features], [areas[n] for n in model.rpn_features], sizes
        )
        found = model(samples())
    for i, (boxes, scores) in enumerate(proposals):
        expected = torch.from_numpy(golden[f"proposals/{i}/scores"])
        torch.testing.assert_close(scores[:PROPOSALS], expected, rtol=0, atol=1e-4)
        assert gap_in_order(boxes[:PROPOSALS], torch.from_numpy(golden[f"proposals/{i}/boxes"]), expected) < 1e-2
    for i, image in enumerate(found):
        image, expected = image["instances"], {k: golden[f"detections/{i}/{k}"] for k in ("boxes", "scores", "classes")}
        np.testing.assert_allclose(image["scores"], expected["scores"], atol=1e-4)
        np.testing.assert_array_equal(image["pred_classes"], expected["classes"])
        np.testing.assert_allclose(image["pred_boxes"], expected["boxes"], atol=1e-2)
        masks = image["pred_masks"]
        theirs = np.unpackbits(golden[f"detections/{i}/masks"])[: masks.numel()].reshape(masks.shape).astype(bool)
        # On random weights many pixels lie close to the threshold: one in a thousand may fall to the other side.
        assert (masks.numpy() != theirs).sum() <= max(2, 1e-3 * theirs.sum())


def test_losses_and_gradients_are_detectron2s(case):
    gate, golden = case
    model = detector(gate, *SAMPLE_ALL).train()
    losses = model(samples())
    assert {f"loss/{name}" for name in losses} == {key for key in golden if key.startswith("loss/")}
    for name, value in losses.items():
        assert value.item() == pytest.approx(float(golden[f"loss/{name}"]), rel=1e-4)
    sum(losses.values()).backward()
    names, norms = golden["gradient/names"].tolist(), golden["gradient/norms"]
    parameters = dict(model.named_parameters())
    assert sorted(names) == sorted(name for name, p in parameters.items() if p.grad is not None)
    ours = np.array([float(parameters[name].grad.double().norm()) for name in names])
    np.testing.assert_allclose(ours, norms, rtol=1e-3, atol=1e-6 * norms.max())
