"""What a study says of its runs."""

import json
import statistics
from dataclasses import replace

import numpy as np
import pytest

from se_det.errors import CheckpointError
from se_det.study import read_study
from se_det.study.report import write_study_report
from se_det.study.results import RESULT, T, confidence_interval, read_results

TEXT = (
    "kind: pretrain\nconfig: modern\nrows:\n  plain: {MODEL.NAME: resnet18}\n  se: {MODEL.NAME: se_resnet18}\n"
    "seeds: [1, 2, 3]\n"
)


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return read_study(path)


def put(study, folder, row, seed, metric, **more):
    run = next(run for run in study.runs() if (run.row, run.seed) == (row, seed))
    path = run.folder(folder) / RESULT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metric": metric, "memory_mib": 100.0, **more}), encoding="utf-8")


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    random = np.random.default_rng(0)
    for count in (2, 3, 5, 40):
        samples = random.normal(1.0, 3.0, (20_000, count))
        found = [confidence_interval(list(row)) for row in samples[:4000]]
        covered = np.mean([abs(i.mean - 1.0) <= i.half_width for i in found])
        assert covered == pytest.approx(0.95, abs=0.012), count


def test_the_table_of_t_falls_to_the_normal_distribution():
    assert list(T) == sorted(T, reverse=True) and T[-1] > statistics.NormalDist().inv_cdf(0.975)
    assert confidence_interval([0.0, 1.0] * 500).half_width == pytest.approx(1.9623 * 0.50025 / 1000**0.5, rel=1e-3)


def test_differences_are_paired_by_the_seed(study, tmp_path):
    for seed, (plain, se) in {1: (50.0, 51.0), 2: (60.0, 61.5), 3: (70.0, None)}.items():
        put(study, tmp_path, "plain", seed, plain, step_seconds=0.1 * seed)
        if se is not None:
            put(study, tmp_path, "se", seed, se, parameters=7, multiply_adds=9)
    plain, se = read_results(study, tmp_path)
    assert plain.mean == 60.0 and plain.spread == pytest.approx(10.0) and plain.difference is None
    assert plain.step_seconds == pytest.approx(0.2)
    assert se.missing == (3,) and se.difference.mean == pytest.approx(1.25)
    assert se.difference.half_width == pytest.approx(12.706 * 0.25)
    assert not se.difference.excludes_zero
    assert (se.parameters, se.multiply_adds) == (7, 9)


def test_the_report_names_what_is_not_done_and_what_failed(study, tmp_path):
    put(study, tmp_path, "plain", 1, 50.0, parameters=1_000_000, multiply_adds=2_000_000_000)
    put(study, tmp_path, "se", 1, 53.0, parameters=1_100_000, multiply_adds=2_000_000_000)
    failing = study.runs()[3]
    write_study_report(study, tmp_path, {failing: "it has <b>no</b> data"})
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| se | 53.00 |  | 1 | +3.00 |" in table and "se, seed 2 failed: it has <b>no</b> data" in table
    assert "plain, seed 2; plain, seed 3; se, seed 2; se, seed 3" in table
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;no&lt;/b&gt;" in page and "data:image/png" in page
    assert json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))["rows"][1]["values"] == {"1": 53.0}
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_further_metrics_are_columns(study, tmp_path):
    study = replace(study, also=("classification/top5", "segm/AP"))
    for seed, top5 in ((1, 90.0), (2, 94.0)):
        put(study, tmp_path, "plain", seed, 50.0, metrics={"classification/top5": top5})
    plain, se = write_study_report(study, tmp_path)
    assert plain.also == {"classification/top5": 92.0} and se.also == {}
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    head, cells = (
        next(line.split(" | ") for line in lines if line.startswith(start)) for start in ("| row", "| plain")
    )
    assert cells[head.index("classification/top5")] == "92.00"


def test_a_torn_result_is_named(study, tmp_path):
    put(study, tmp_path, "plain", 1, 50.0)
    path = study.runs()[0].folder(tmp_path) / RESULT
    path.write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"result.json cannot be read"):
        read_results(study, tmp_path)
