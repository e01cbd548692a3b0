"""The simulation behind docs/scale.md: where it can be counted by hand it is, and the page has what it prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from se_det.benchmarks.scale import Machine, Prediction, Training, predict, prediction_limits, tables, train

CALM = Machine(hours_between_kills=float("inf"))
EVEN = Prediction(between_gpus=0.0, between_shards=0.0)
STEADY = Training(variation=0.0, evaluations=0)


@pytest.mark.parametrize("gpus", [1, 8, 50])
def test_an_even_prediction_is_a_division(gpus: int) -> None:
    found = predict(EVEN, CALM, gpus)
    assert found.hours == pytest.approx(1e8 * 0.038 / 3600 / gpus)
    assert found.images_per_second == pytest.approx(gpus / 0.038)
    assert found.read == pytest.approx(gpus / 0.038 * 154e3)
    assert (found.idle, found.kills, found.again) == (pytest.approx(0), 0, 0)
    assert found.dollars == pytest.approx(1e8 * 0.038 / 3600 * 2.5)


def test_whole_shards_do_not_divide() -> None:
    """7 processes and 10,000 shards: four of them have one more."""
    found = predict(EVEN, CALM, 7)
    assert found.hours == pytest.approx(1429 * 10_000 * 0.038 / 3600)
    assert found.idle == pytest.approx(1 - 10_000 / 7 / 1429)


def test_the_slowest_part_sets_the_rate() -> None:
    fast = replace(EVEN, rate=1e6)
    assert predict(fast, CALM, 8).images_per_second == pytest.approx(8 * 12 / 16.1e-3)  # cores
    thin = replace(CALM, network=154e3 * 80)
    assert predict(fast, thin, 8).images_per_second == pytest.approx(80)
    assert predict(fast, thin, 16).images_per_second == pytest.approx(160)  # two machines


def test_kills_cost_what_they_should() -> None:
    machine = Machine(hours_between_kills=10.0, restart=600.0)
    found = [predict(EVEN, machine, 1, seed=seed) for seed in range(20)]
    hours = 1e8 * 0.038 / 3600
    assert sum(one.kills for one in found) / 20 == pytest.approx(hours / 10, rel=0.1)
    for one in found:
        assert one.hours == pytest.approx(hours + one.kills * 600 / 3600 + one.again * 0.038 / 3600)
        assert one.again / one.kills == pytest.approx(250, rel=0.25)


def test_an_even_training_is_a_product() -> None:
    one, eight, many = (train(STEADY, CALM, gpus) for gpus in (1, 8, 64))
    assert one.hours == pytest.approx(270_000 * (16 * 0.085 + 0.012) / 3600) and one.exchange == one.waiting == 0
    ring = 2 * 7 / 8 * 41.7e6 * 4 / 50e9
    assert eight.step == pytest.approx(2 * 0.085 + 0.012 + 0.3 * ring)
    assert (many.batch, many.steps) == (64, 67_500)
    assert many.step == pytest.approx(0.085 + 0.012 + 0.3 * 2 * 63 / 64 * 41.7e6 * 4 / 3.125e9)


def test_the_published_step_is_met() -> None:
    """0.209 s on 8 GPUs, which the rest of the table stands on."""
    assert train(Training(), Machine(), 8).step == pytest.approx(0.209, rel=0.02)
    assert train(Training(), Machine(), 64).waiting > train(Training(), Machine(), 8).waiting > 0


def test_limits_are_sorted_and_hold() -> None:
    job, machine = Prediction(), Machine()
    (_, gpus, _), *_ = prediction_limits(job, machine)
    assert gpus == f"{5500 * 0.038:.0f} GPUs"
    cores = next(where for what, where, _ in prediction_limits(job, machine) if "decode" in what)
    assert cores == f"{12 / 16.1e-3:.0f} images/s a GPU"


def test_the_page_has_the_tables() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    for table in tables().strip().split("\n\n"):
        assert table in page
