"""Every family's detections, losses and gradients against what Detectron2 computed; see tests/integrations/families."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ..integrations.compare import output_gaps, outputs, training
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

    numbers = training(model, samples)
    allowed = family.tolerances
    for key, value in losses.items():
        assert numbers.pop(key) == pytest.approx(float(value), rel=allowed["losses"]), key
    ours = {key.removeprefix("gradient/"): float(value) for key, value in numbers.items()}
    assert ours.keys() == gradients.keys()
    largest = max(gradients.values())
    for key, value in gradients.items():
        assert ours[key] == pytest.approx(value, rel=allowed["gradients"], abs=1e-6 * largest), key
