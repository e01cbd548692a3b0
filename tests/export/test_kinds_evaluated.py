"""Files of each kind in a checkpoint's place: the same numbers from `--eval-only`, the same findings from `predict`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from se_det.cli.export import _detector
from se_det.cli.main import main
from se_det.inference import Predictor
from se_det.inference.runtimes import RUNTIMES

from .cases import ENDINGS, ExportCase, evaluated, predicted
from .results import assert_same_pixels, assert_same_results
from .test_detectors import GraphRuntime
from .tiny import KINDS
from .truth import PIXELS

STAND_IN = ".graph"


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("panoptic", STAND_IN),
        *(pytest.param(kind, ending, marks=pytest.mark.slow) for kind in KINDS for ending in ENDINGS),
    ],
)
def test_a_file_in_a_checkpoints_place(
    case_of: Callable[[str], ExportCase],
    kind: str,
    ending: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    case = case_of(kind)
    if ending == STAND_IN:  # the network itself, as if a file ran it: no export
        args = {"config_file": None, "part": "detector", "no_preprocessing": False, "overrides": []}
        network = _detector(argparse.Namespace(weights=str(case.weights), **args))
        monkeypatch.setitem(RUNTIMES._obj_map, STAND_IN, lambda path, device: GraphRuntime(network))
        (file := tmp_path / "x.graph").touch()
    else:
        file = case.file(ending)
    checkpoint, exported = Predictor(case.weights), Predictor(file)
    for name in ("class_names", "category_ids", "pixel_class_names", "pixel_category_ids", "keypoint_names",
                 "skeleton"):  # fmt: skip
        assert getattr(exported, name) == getattr(checkpoint, name), name
    drawn = predicted(file, case.images, tmp_path / "drawn")
    assert_same_results(*(json.loads((folder / "detections.json").read_text()) for folder in (drawn, case.drawn)))
    assert_same_pixels(drawn, case.drawn)
    metrics, known = evaluated(file, case.data, tmp_path / "evaluated"), case.metrics
    assert metrics.keys() == known.keys() and (kind != "panoptic" or "panoptic_seg" in known)
    for task, values in known.items():
        assert any(0 < value < 100 for value in values.values() if value is not None), task
        for name, value in values.items():
            assert value == metrics[task][name] or abs(metrics[task][name] - value) < 0.01, (task, name)
    if kind == "semantic":
        capsys.readouterr()
        words = [f"MODEL.WEIGHTS={file}", "MODEL.DEVICE=cpu", *case.data[:-1], str(["other", *PIXELS[1:]])]
        assert main(["train", "--eval-only", *words, "--output", str(tmp_path / "other")]) == 1
        said = capsys.readouterr().err
        assert "exported with the classes of pixels things, sky" in said and "the data has other" in said
