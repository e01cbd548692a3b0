"""Whole detectors against Detectron2's numbers, in each arithmetic, under every padding, and compiled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from se_det.detection.compilation import check_compiler, compile_backbone
from se_det.detection.fuse import prepare_for_inference
from tests.detection.conftest import make_sample, small_config
from tests.detection.test_compilation import detector as lively_detector
from tests.detection.test_golden import GOLDEN, detector
from tests.integrations.detectron2_pair import GATES, gap_in_order
from tests.integrations.known_weights import SAMPLE_ALL, samples
from tests.integrations.make_golden import PROPOSALS, spread

from .comparing import SHARES, apart, arithmetic, gradients, largest


def golden(gate: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"mask_rcnn_{gate}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("gate", GATES)
def test_maps_proposals_and_detections_are_detectron2s(device, gate):
    expected = golden(gate)
    model = detector(gate).eval().to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        x, sizes = model.batch([s["image"] for s in samples()])
        maps, areas = model.backbone.features(x)
        proposals, _ = model.proposal_generator(
            [maps[n] for n in model.rpn_features], [areas[n] for n in model.rpn_features], sizes
        )
        found = model(samples())
    for name, values in maps.items():
        assert apart(torch.from_numpy(spread(values.cpu())), torch.from_numpy(expected[f"map/{name}"])) < 1e-4
    for i, (boxes, scores) in enumerate(proposals):
        wanted = torch.from_numpy(expected[f"proposals/{i}/scores"])
        torch.testing.assert_close(scores[:PROPOSALS].cpu(), wanted, rtol=0, atol=2e-4)
        boxes, theirs = boxes[:PROPOSALS].cpu(), torch.from_numpy(expected[f"proposals/{i}/boxes"])
        assert gap_in_order(boxes, theirs, wanted, tie=1e-4) < 2e-2
    for i, image in enumerate(found):
        image = {name: value.cpu() for name, value in image["instances"].items()}
        np.testing.assert_allclose(image["scores"], expected[f"detections/{i}/scores"], atol=2e-4)
        np.testing.assert_array_equal(image["pred_classes"], expected[f"detections/{i}/classes"])
        np.testing.assert_allclose(image["pred_boxes"], expected[f"detections/{i}/boxes"], atol=2e-2)
        masks = image["pred_masks"]
        theirs = np.unpackbits(expected[f"detections/{i}/masks"])[: masks.numel()].reshape(masks.shape).astype(bool)
        assert (masks.numpy() != theirs).sum() <= max(2, 1e-3 * theirs.sum())


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("gate", GATES)
def test_losses_and_gradients_are_detectron2s(device, gate, kind):
    expected = golden(gate)
    model = detector(gate, *SAMPLE_ALL).train().to(device, memory_format=torch.channels_last)
    with arithmetic(kind, device):
        losses = model(samples())
    sum(losses.values()).backward()
    # A proposal that is matched otherwise changes the box loss.
    share = {"float32": 2e-4, "tf32": 5e-2, "float16": 5e-2, "bfloat16": 0.2}[kind]
    for name, value in losses.items():
        assert value.item() == pytest.approx(float(expected[f"loss/{name}"]), rel=share), name
    norms = dict(zip(expected["gradient/names"].tolist(), expected["gradient/norms"]))
    ours = {name: float(g.double().norm()) for name, g in gradients(model).items()}
    assert sorted(ours) == sorted(norms)
    top = max(norms.values())
    assert max(abs(ours[name] - norms[name]) / top for name in norms) < {"float32": 1e-3}.get(kind, share)


@pytest.mark.parametrize("padding", ["keep", "squeeze", "exact"])
@pytest.mark.parametrize("gate", ["se", "rg_se"])
def test_padding(device, gate, padding):
    """Maps of a batch whose images are padded, as the CPU has them; under "exact", as of the images alone."""
    batch = [make_sample(90, 123, [], seed=1)["image"], make_sample(64, 80, [], seed=2)["image"]]
    model = prepare_for_inference(lively_detector(gate, padding))
    on_device = lively_detector(gate, padding).to(device)
    with torch.no_grad():
        expected, found = (m.backbone(*m.batch(batch)) for m in (model, on_device))
        assert largest(found, expected) < (1e-4,)
        for number, image in enumerate(batch if padding == "exact" else []):
            alone = on_device.backbone(*on_device.batch([image]))
            for name, values in alone.items():
                # Cells that the smaller batch does not pad: the image's own.
                height, width = (-(-side // (32 if name == "p5" else 2 ** int(name[1:]))) for side in image.shape[1:])
                if name != "p6":
                    together = found[name][number, :, :height, :width]
                    assert apart(together, values[0, :, :height, :width]) < 1e-4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("gate", ["none", *GATES[1:]])
def test_prepared_for_inference(device, gate, precision):
    """Fused, in channels_last and in a lower precision: its maps, and how many objects are found."""
    batch = [make_sample(90, 123, [], seed=1), make_sample(96, 128, [], seed=2)]
    plain = detector(gate).eval()
    fused = prepare_for_inference(detector(gate).to(device), precision=precision)
    with torch.no_grad():
        images = [s["image"] for s in batch]
        expected, found = (m.backbone(*m.batch(images)) for m in (plain, fused))
        assert largest(found, expected) < (SHARES[precision],)
        counts = [len(one["instances"]["scores"]) for one in fused(batch)]
        wanted = [len(one["instances"]["scores"]) for one in plain(batch)]
    assert all(c == pytest.approx(w, rel=0.0 if precision == "float32" else 0.1, abs=2) for c, w in zip(counts, wanted))


def test_compiled(device):
    """On a CPU tests/detection/test_compilation.py says the same, where compiling takes minutes."""
    if device.type == "cpu":
        pytest.skip("see tests/detection/test_compilation.py")
    torch.compiler.reset()
    check_compiler(device)
    batch = [make_sample(90, 123, [], seed=1)]
    plain, compiled = (lively_detector("se", "keep").to(device) for _ in range(2))
    compile_backbone(compiled)
    with torch.no_grad():
        x, sizes = plain.batch([s["image"] for s in batch])
        assert largest(compiled.backbone(x, sizes), plain.backbone(x, sizes)) < (1e-4,)
        found, expected = compiled(batch)[0]["instances"], plain(batch)[0]["instances"]
    assert torch.equal(found["pred_classes"], expected["pred_classes"])
    assert apart(found["scores"], expected["scores"]) < 1e-3


def test_detections_of_a_batch_are_those_of_its_images(device):
    cfg = small_config()
    assert cfg.MODEL.GATE.PADDING == "keep"
    model = lively_detector("se", "keep").to(device)
    batch = [make_sample(96, 128, [], seed=s) for s in range(3)]
    with torch.no_grad():
        together, alone = model(batch), [model([one])[0] for one in batch]
    for one, other in zip(together, alone):
        found, expected = one["instances"], other["instances"]
        assert len(expected["scores"]) > 0
        assert torch.equal(found["pred_classes"], expected["pred_classes"])
        assert apart(found["scores"], expected["scores"]) < 1e-3
