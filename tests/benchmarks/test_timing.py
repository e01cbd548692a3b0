import csv
import json
from contextlib import contextmanager

import pytest
import torch

from se_det.benchmarks.results import publish
from se_det.benchmarks.timing import Comparison, machine, time_alternately, time_processes_alternately
from se_det.errors import ConfigError


@pytest.mark.slow
def test_ways_take_turns_and_the_order_is_reversed_every_other_time():
    order = []
    seconds = time_alternately({name: lambda n=name: order.append(n) for name in "ab"}, repeat=3)
    assert "".join(order) == "baabbaab"  # the first pair warms up
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_what_a_turn_begins_and_ends_is_around_it_and_not_counted(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("se_det.benchmarks.timing.time.perf_counter", lambda: clock[0])

    def spend(seconds):
        clock[0] += seconds

    @contextmanager
    def around():
        spend(100)
        yield
        spend(1000)

    ways = {"a": lambda: spend(1), "b": lambda: spend(2)}
    assert time_alternately(ways, repeat=2, context={"a": around}) == {"a": [1, 1], "b": [2, 2]}
    assert clock[0] == 3 * (100 + 1 + 1000 + 2)


def test_ratios_are_of_pairs_and_their_median():
    """Medians of the sides would give 4 / 2; the pairs give 2, 1 and 4."""
    comparison = Comparison(
        "x", {"ours": [4.0, 1.0, 8.0], "theirs": [2.0, 1.0, 2.0]}, "theirs", {"ours": 150, "theirs": 100}
    )
    ours, theirs = comparison.rows()
    assert comparison.ratios("ours") == [2, 1, 4]
    assert (ours["time_ratio"], ours["lowest_ratio"], ours["highest_ratio"]) == (2, 1, 4)
    assert (ours["seconds"], ours["memory_ratio"], theirs["time_ratio"]) == (4, 1.5, 1)


def test_rates_and_files(tmp_path):
    comparison = Comparison("x", {"ours": [2.0], "theirs": [4.0]}, "theirs", amount=8)
    publish([comparison], machine(), json=str(tmp_path / "a.json"), csv_file=str(tmp_path / "a.csv"))
    written = json.loads((tmp_path / "a.json").read_text())
    assert [row["images_per_second"] for row in written["rows"]] == [4, 2]
    assert written["machine"]["torch"] == torch.__version__
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [(row["way"], float(row["time_ratio"])) for row in rows] == [("ours", 0.5), ("theirs", 1.0)]


def _fill(mebibytes):
    return lambda: len(torch.ones(mebibytes, 2**20, dtype=torch.uint8))


def _refuse():
    raise ConfigError("MODEL.DEPTH is odd.")


@pytest.mark.slow
def test_processes_take_turns_and_have_their_own_peaks():
    ways = {"small": (_fill, (50,)), "large": (_fill, (450,))}
    seconds, peaks, last = time_processes_alternately(ways, repeat=2)
    assert [len(values) for values in seconds.values()] == [2, 2]
    assert peaks["large"] - peaks["small"] == pytest.approx(400, abs=40)
    assert last == {"small": 50, "large": 450}


@pytest.mark.slow
def test_a_refusal_in_a_process_is_ours():
    with pytest.raises(ConfigError, match=r"MODEL\.DEPTH is odd"):
        time_processes_alternately({"odd": (_refuse, ())}, repeat=1)
