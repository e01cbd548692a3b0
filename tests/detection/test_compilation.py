"""The compiled backbone against the one that is not, the bound on shapes, and a machine without a compiler."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch

from se_det.detection import build_detector, compilation
from se_det.detection.compilation import CompiledFeatures, check_compiler, compile_backbone
from se_det.detection.fuse import prepare_for_inference
from se_det.errors import ConfigError

from .conftest import make_sample, small_config


def detector(gate: str, padding: str):
    torch.manual_seed(1)
    model = build_detector(small_config(gate, overrides=("MODEL.GATE.PADDING", padding))).eval()
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(25)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
    return prepare_for_inference(model)


@pytest.mark.slow
@pytest.mark.parametrize("gate, padding", [("se", "keep"), ("rg_se", "exact")])
def test_compiled_maps_and_detections_are_the_same(gate, padding, monkeypatch, caplog):
    monkeypatch.setattr(compilation, "MAX_SHAPES", 2)
    torch.compiler.reset()
    model = detector(gate, padding)
    batches = [[make_sample(90, 123, [], seed=1)], [make_sample(64, 64, [], seed=2)] * 2,
               [make_sample(64, 100, [], seed=3)], [make_sample(90, 123, [], seed=4)]]  # fmt: skip
    with torch.no_grad():
        inputs = [model.batch([s["image"] for s in batch]) for batch in batches]
        maps = [model.backbone(x, sizes) for x, sizes in inputs]
        found = [model(batch) for batch in batches]
        compile_backbone(model)
        for (x, sizes), want in zip(inputs, maps):
            got = model.backbone(x, sizes)
            assert all((got[n] - want[n]).abs().max() < 1e-4 * want[n].abs().max() for n in want)
        for batch, images in zip(batches, found):
            for one, other in zip(model(batch), images):
                assert torch.equal(one["instances"]["pred_classes"], other["instances"]["pred_classes"])
                torch.testing.assert_close(one["instances"]["scores"], other["instances"]["scores"], rtol=0, atol=1e-4)
    assert caplog.text.count("more than 2 shapes") == 1


def test_only_so_many_shapes_are_compiled(monkeypatch, caplog):
    """Without a compiler: what is compiled is counted."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: lambda x, area: compiled.append(x.shape) or f(x, area))
    monkeypatch.setattr(compilation, "MAX_SHAPES", 2)
    backbone = build_detector(small_config("none")).eval().backbone
    features = CompiledFeatures(backbone)
    with torch.no_grad(), caplog.at_level(logging.INFO):
        for side in (32, 64, 32, 96, 128, 64):
            features(torch.zeros(1, 3, side, 32))
    assert [shape[2] for shape in compiled] == [32, 64, 32, 64]
    assert caplog.text.count("Compiling") == 2 and caplog.text.count("more than 2 shapes") == 1


def test_no_compiler_is_a_sentence(monkeypatch):
    def fail(graph, inputs):
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fail))
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler was found.*TEST.COMPILE False"):
        check_compiler(torch.device("cpu"))
