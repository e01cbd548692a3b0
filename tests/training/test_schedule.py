"""The schedules against numbers that Detectron2 0.6's build_lr_scheduler gave, step by step, for the same keys."""

from __future__ import annotations

import pytest

from se_det.errors import ConfigError
from se_det.training.schedule import SCHEDULES, WARMUPS, LearningRate, scaled_base_lr, schedule_warnings

COSINE = "WarmupCosineLR"
# fmt: off
DETECTRON2 = {
    "1x": (
        {"max_iter": 90000, "base_lr": 0.02, "steps": (60000, 80000)},
        {0: 2e-05, 1: 3.998e-05, 500: 0.01001, 999: 0.01998002, 1000: 0.02, 1001: 0.02, 59999: 0.02, 60000: 0.002,
         79999: 0.002, 80000: 0.0002, 89999: 0.0002},
    ),
    "constant warm-up": (
        {"max_iter": 100, "base_lr": 0.01, "steps": (50, 80), "warmup_iters": 10, "warmup_method": "constant",
         "warmup_factor": 0.1},
        {0: 0.001, 9: 0.001, 10: 0.01, 11: 0.01, 49: 0.01, 50: 0.001, 79: 0.001, 80: 0.0001, 99: 0.0001},
    ),
    "a decay inside the warm-up": (
        {"max_iter": 40, "base_lr": 0.01, "steps": (10, 30), "gamma": 0.5, "warmup_iters": 20},
        {0: 1e-05, 5: 0.0012575, 10: 0.002505, 15: 0.0037525, 19: 0.0047505, 20: 0.005, 29: 0.005, 30: 0.0025,
         39: 0.0025},
    ),
    "a warm-up longer than the run": (
        {"max_iter": 20, "base_lr": 0.01, "warmup_iters": 1000}, {0: 1e-05, 1: 0.0005095, 10: 0.005005, 19: 0.0095005},
    ),
    "no warm-up": (
        {"max_iter": 20, "base_lr": 0.01, "steps": (15,), "warmup_iters": 0}, {0: 0.01, 14: 0.01, 15: 0.001, 19: 0.001},
    ),
    "cosine": (
        {"name": COSINE, "max_iter": 1000, "base_lr": 0.04, "warmup_iters": 100},
        {0: 4e-05, 1: 0.00042981130325903073, 50: 0.019530565162951537, 99: 0.038631319022644044,
         100: 0.039021130325903076, 101: 0.039001620382015434, 500: 0.02, 999: 9.869596283573756e-08},
    ),
    "cosine to an end": (
        {"name": COSINE, "max_iter": 300, "base_lr": 0.04, "end_factor": 0.1, "warmup_iters": 30,
         "warmup_method": "constant", "warmup_factor": 0.25},
        {0: 0.01, 29: 0.01, 30: 0.03911901729331277, 31: 0.03905983138017254, 150: 0.022, 299: 0.004000986951420782},
    ),
    "cosine with a warm-up longer than the run": (
        {"name": COSINE, "max_iter": 50, "base_lr": 0.04, "end_factor": 0.25, "warmup_iters": 80},
        {0: 4e-05, 1: 0.0002392, 25: 0.00502, 49: 0.0098008},
    ),
}
# fmt: on


@pytest.mark.parametrize("case", DETECTRON2)
def test_rates_are_detectron2s(case: str) -> None:
    arguments, rates = DETECTRON2[case]
    rate = LearningRate(**arguments)
    assert {step: rate(step) for step in rates} == pytest.approx(rates, rel=1e-12, abs=1e-16)


def test_steps_at_or_after_the_end_are_left_out() -> None:
    rate = LearningRate(max_iter=20, base_lr=1.0, steps=(10, 20, 30), warmup_iters=0)
    assert [rate(9), rate(10), rate(19)] == pytest.approx([1.0, 0.1, 0.1])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"name": "StepLR"}, "SOLVER.LR_SCHEDULER_NAME"),
        ({"warmup_method": "square"}, "SOLVER.WARMUP_METHOD"),
        ({"steps": (30, 20)}, "SOLVER.STEPS"),
        ({"max_iter": 0}, "SOLVER.MAX_ITER"),
        ({"base_lr": 0.0}, "SOLVER.BASE_LR"),
        ({"end_factor": 2.0}, "SOLVER.BASE_LR_END"),
        ({"warmup_iters": -1}, "SOLVER.WARMUP_ITERS"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_by_key(arguments: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        LearningRate(**{"max_iter": 100, "base_lr": 0.1, **arguments})


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("method", WARMUPS)
def test_a_warm_up_beyond_the_end_is_told_with_the_rate_that_is_reached(name, method):
    rate = LearningRate(base_lr=0.02, max_iter=300, name=name, warmup_iters=1000, warmup_method=method)
    (sentence,) = schedule_warnings(rate)
    highest = max(map(rate, range(300)))
    assert "SOLVER.WARMUP_ITERS 1000" in sentence and "SOLVER.MAX_ITER 300" in sentence and "such as 30" in sentence
    assert f"reaches {highest:.3g} of 0.02 at most and ends at {rate(299):.3g}" in sentence


def test_a_long_warm_up_and_late_steps_are_told():
    (sentence,) = schedule_warnings(LearningRate(base_lr=1.0, max_iter=300, warmup_iters=200))
    assert "takes most of the run" in sentence
    assert not schedule_warnings(LearningRate(base_lr=1.0, max_iter=300, warmup_iters=100, steps=(200, 250)))
    (sentence,) = schedule_warnings(LearningRate(base_lr=1.0, max_iter=300, warmup_iters=0, steps=(400, 500)))
    assert sentence == "SOLVER.STEPS [400, 500] are not before SOLVER.MAX_ITER 300: the learning rate is never lowered."
    (sentence,) = schedule_warnings(LearningRate(base_lr=1.0, max_iter=300, warmup_iters=0, steps=(200, 500)))
    assert "[500] are not before SOLVER.MAX_ITER 300: they are left out" in sentence


def test_the_linear_rule() -> None:
    assert scaled_base_lr(0.02, 2, 16) == 0.0025
    assert scaled_base_lr(0.02, 64, 16) == 0.08
    assert scaled_base_lr(0.02, 2, 0) == 0.02
