"""The pyramid beside OpenVINO's: what is measured, and that results which differ are refused."""

import pytest

from se_det.benchmarks import pyramid
from se_det.benchmarks.pyramid import OURS, THEIRS, compare_pyramids
from se_det.errors import ConfigError

CONFIG = "configs/mask_rcnn_se_r18_fpn.yaml"


@pytest.mark.slow
def test_precisions_take_turns(in_process, monkeypatch, tmp_path):
    pytest.importorskip("openvino")
    compared = list(compare_pyramids(CONFIG, [(64, 96)], images=2, repeat=2, folder=str(tmp_path)))
    assert [c.name.removeprefix("pyramid, ") for c in compared] == [
        f"{precision}, 64 x 96{clock}" for precision in ("float32", "bfloat16") for clock in ("", ", CPU time")
    ]
    assert all(
        c.amount == 2 and {way: len(s) for way, s in c.seconds.items()} == {OURS: 2, THEIRS: 2} for c in compared
    )
    fuse = pyramid.fuse_for_inference
    monkeypatch.setattr(
        pyramid, "fuse_for_inference", lambda network, dtype: fuse(network, dtype=dtype).fpn_output2.bias.add_(1)
    )
    with pytest.raises(ConfigError, match="se_det's map 1 in float32 differs"):
        next(compare_pyramids(CONFIG, [(64, 96)], images=1, repeat=1, folder=str(tmp_path)))
