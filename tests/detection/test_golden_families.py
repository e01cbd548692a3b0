"""Every family's detections, losses and gradients against what Detectron2 computed; see tests/integrations/families."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..integrations.compare import Numbers, output_gaps, outputs, training
from ..integrations.families import FAMILIES

CASES = [(name, case) for name, family in FAMILIES.items() for case in family.golden]


@pytest.mark.parametrize(("name", "case"), CASES, ids=["-".join(case) for case in CASES])
def test_outputs_losses_and_gradients_are_detectron2s(name: str, case: str):
    family = FAMILIES[name]
    with np.load(Path(__file__).parent / "golden" / f"family_{name}.npz") as file:
        golden = {key.removeprefix(f"{case}/"): file[key] for key in file.files if key.startswith(f"{case}/")}
    gradients = dict(zip(golden.pop("gradient names").tolist(), golden.pop("gradients").tolist(), strict=True))
    losses = {key: golden.pop(key) for key in list(golden) if key.startswith("loss/")}
    model, samples = family.build_ours(family.golden[case]), family.samples()

    found = outputs(model, samples)
    for key, value in found.items():
        if value.dtype == bool:
            golden[key] = np.unpackbits(golden[key], axis=-1, count=value.shape[-1]).astype(bool)
    gaps = output_gaps(found, golden)
    assert gaps.pop("objects") > 10
    assert not [key for key, gap in gaps.items() if not gap <= family.tolerances.get(key, 0)], gaps

    wrong = _wrong_numbers(training(model, samples), losses, gradients, family.tolerances)
    if wrong:  # in float32 another CPU's kernels may turn a unit over that lies at zero; in float64 none does
        model = family.build_ours(family.golden[case]).double()
        wrong = _wrong_numbers(training(model, samples), losses, gradients, family.tolerances)
    assert not wrong


def _wrong_numbers(
    numbers: Numbers, losses: Mapping[str, Any], gradients: Mapping[str, float], allowed: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Losses and gradient norms that are not Detectron2's, with Detectron2's."""
    theirs = {key: pytest.approx(float(value), rel=allowed["losses"]) for key, value in losses.items()}
    smallest = 1e-6 * max(gradients.values())
    for name, value in gradients.items():
        theirs[f"gradient/{name}"] = pytest.approx(value, rel=allowed["gradients"], abs=smallest)
    assert numbers.keys() == theirs.keys()
    return {key: (float(numbers[key]), value) for key, value in theirs.items() if float(numbers[key]) != value}
