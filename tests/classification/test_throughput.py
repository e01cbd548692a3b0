"""What the benchmark measures; how fast is not a test's business."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from se_det.backbones import create_model
from se_det.classification.throughput import measure, table
from se_det.errors import ConfigError

SETTING = {"size": 32, "batch": 4, "workers": 0, "batches": 1, "repeat": 2, "device": torch.device("cpu")}


def test_every_part_is_measured_as_often(pictures: Path) -> None:
    pytest.importorskip("timm")
    model = create_model("se_tiny", num_classes=3)
    before = model.linear.weight.clone()
    speeds = measure(str(pictures / "train"), model, **SETTING)
    assert list(speeds) == ["loader", "model", "both", "timm loader"]
    assert all(len(values) == 2 and min(values) > 0 for values in speeds.values())
    assert not torch.equal(before, model.linear.weight)  # it was trained
    with pytest.raises(ConfigError, match="--batch 99 is more than the 18 images"):
        measure(str(pictures / "train"), model, **{**SETTING, "batch": 99})


def test_the_table_says_medians_and_the_ratio_of_pairs() -> None:
    lines = table({"loader": [10.0, 30.0, 20.0], "model": [5.0, 5.0, 5.0], "timm loader": [10.0, 10.0, 10.0]})
    assert lines[0].split() == ["loader", "20.0", "images/s", "(10.0", "to", "30.0)"]
    assert lines[-1] == "the loader gives 2.00 times the images of timm's (1.00 to 3.00)"
    assert len(table({"loader": [1.0]})) == 1
