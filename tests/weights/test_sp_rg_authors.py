"""The SP/RG authors' networks: their own code made the logits in sp_rg_logits.json, which says how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from family_cases import as_file, drawn, drawn_image

from se_det.backbones import create_model
from se_det.weights import identify, load_weights
from se_det.weights.families import FAMILIES
from se_det.weights.families.conversion import from_ours, strip_prefix

LOGITS = json.loads((Path(__file__).parent / "sp_rg_logits.json").read_text())["logits"]


@pytest.mark.parametrize("name", sorted(LOGITS))
def test_logits_of_the_authors_code(name):
    model = create_model(name).eval()
    theirs = from_ours(strip_prefix(model.state_dict())[0], FAMILIES["sp_rg"])
    assert not theirs.unknown
    shapes = {key.removeprefix("module."): tensor.shape for key, tensor in theirs.tensors.items()}
    file = as_file({f"module.{key}": tensor for key, tensor in drawn(shapes, seed=3).items()})
    assert identify(file).family == "sp_rg"
    report = load_weights(model, file)
    assert not report.missing and not report.unexpected and not report.fresh_gates
    with torch.no_grad():
        logits = model(drawn_image())[0]
    expected = torch.tensor(LOGITS[name])
    assert (logits[: len(expected)] - expected).abs().max() < 1e-5 * logits.abs().max()
