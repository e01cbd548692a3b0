"""In which precision a run computes, by what its machine multiplies in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from se_det.classification.defaults import load_recipe
from se_det.config import get_cfg
from se_det.config.loading import merge_overrides
from se_det.layers import half_precision as module
from se_det.training.build import decide_precision
from se_det.training.precision import Precision

FLAGS = {"none": ["avx2", "avx512f"], "bfloat16": ["avx512_bf16"], "float16": ["avx512_fp16"]}


@pytest.mark.parametrize("units, dtype", [("none", "bfloat16"), ("none", "float16"), ("bfloat16", "float16")])
def test_mixed_precision_is_left_out_where_the_cpu_is_slower_in_it(monkeypatch, caplog, units, dtype):
    monkeypatch.setattr(module, "cpu_flags", lambda fields: FLAGS[units])
    monkeypatch.setattr(module.mkldnn, "supports_bfloat16", lambda: units == "bfloat16")
    cpu = torch.device("cpu")
    recipe = load_recipe("modern")  # which has it
    recipe.SOLVER.AMP.DTYPE = dtype
    (decided,) = decide_precision(recipe, cpu)
    assert (decided.key, decided.value) == ("SOLVER.AMP.ENABLED", False)
    assert decided.reason == f"its CPU does not multiply in {dtype}" and not caplog.records

    cfg = get_cfg()
    merge_overrides(cfg, ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype])
    assert decide_precision(cfg, cpu) == []  # one's own choice
    assert f"CPU does not multiply in {dtype}: a step may take ten times as long" in caplog.text


def test_mixed_precision_stays_where_the_device_has_it(monkeypatch, caplog):
    recipe = load_recipe("modern")
    monkeypatch.setattr(module.mkldnn, "supports_bfloat16", lambda: True)
    for flags in (FLAGS["bfloat16"], []):  # not told: oneDNN is asked alone
        monkeypatch.setattr(module, "cpu_flags", lambda fields, flags=flags: flags)
        assert decide_precision(recipe, torch.device("cpu")) == []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    (decided,) = decide_precision(recipe, torch.device("cuda"))
    assert decided.reason == "its GPU does not multiply in bfloat16"
    recipe.SOLVER.AMP.DTYPE = "float16"
    assert decide_precision(recipe, torch.device("cuda")) == [] and not caplog.records


def test_a_resumed_run_computes_as_it_started(monkeypatch, caplog):
    monkeypatch.setattr(module, "cpu_flags", lambda fields: FLAGS["none"])
    monkeypatch.setattr(module.mkldnn, "supports_bfloat16", lambda: False)
    cpu, path = torch.device("cpu"), Path("model_0000002.pth")
    recipe = load_recipe("modern")
    for enabled in (True, False):
        started = load_recipe("modern")
        started.SOLVER.AMP.ENABLED = enabled
        (decided,) = decide_precision(recipe, cpu, started.dump(), path)
        assert (decided.value, decided.source) == (enabled, str(path))
    assert caplog.text.count("does not multiply in bfloat16") == 1  # the first goes on slowly

    asked = load_recipe("modern", ["SOLVER.AMP.ENABLED", "True"])  # refused, where it started otherwise
    assert decide_precision(asked, cpu, started.dump(), path) == []


def test_weights_are_those_of_the_step_inside_an_outer_context():
    layer, x = torch.nn.Linear(4, 4, bias=False), torch.ones(1, 4)
    precision = Precision(enabled=True, dtype="bfloat16", device_type="cpu")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            with precision.autocast():
                loss = layer(x).float().sum()
            precision.backward(loss)
            precision.step(optimizer)
        with precision.autocast():
            assert torch.equal(layer(x), (x @ layer.weight.detach().bfloat16().T.float()).bfloat16())
