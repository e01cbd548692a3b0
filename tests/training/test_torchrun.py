"""Torchrun's variables, left over or malformed, are one sentence; whoever waits for others says so."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from se_det.errors import ConfigError
from se_det.training import launch, torchrun
from se_det.training.torchrun import torchrun_environment

GOOD = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch):
    for name in GOOD:
        monkeypatch.delenv(name, raising=False)

    def set_to(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_to


def test_what_torchrun_sets_is_read(environment):
    environment(**GOOD)
    assert torchrun_environment() == torchrun.TorchrunEnvironment(1, 4, 1, "10.0.0.1:29500")


@pytest.mark.parametrize("values", [{}, {"RANK": "3"}, {"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_one_process_is_one_process(environment, values):
    environment(**values)
    assert torchrun_environment() is None
    seen = []
    launch.launch(seen.append, (1,), device="cpu")
    assert seen == [1]


WRONG = {
    "rank a word": ({**GOOD, "RANK": "x"}, "RANK is 'x' in the environment.*from 0 to 3.*unset RANK WORLD_SIZE"),
    "rank too large": ({**GOOD, "RANK": "4"}, "RANK is '4'"),
    "rank negative": ({**GOOD, "RANK": "-1"}, "RANK is '-1'"),
    "rank empty": ({**GOOD, "RANK": ""}, "RANK is ''"),
    "no processes": ({**GOOD, "WORLD_SIZE": "0"}, "WORLD_SIZE is '0'.*from 1 on"),
    "world a float": ({**GOOD, "WORLD_SIZE": "2.0"}, "WORLD_SIZE is '2.0'"),
    "port a word": ({**GOOD, "MASTER_PORT": "http"}, "MASTER_PORT is 'http'.*1 to 65535"),
    "local rank a word": ({**GOOD, "LOCAL_RANK": "gpu"}, "LOCAL_RANK is 'gpu'"),
    "no master": ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT are not: torchrun sets all"),
    "no port": ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, "MASTER_PORT is not"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(environment, case):
    values, message = WRONG[case]
    environment(**values)
    with pytest.raises(ConfigError, match=message):
        launch.launch(print, device="cpu")


def test_log_while_waiting(caplog, monkeypatch):
    monkeypatch.setattr(torchrun, "FIRST_NOTE", 0.05)
    with torchrun.log_while_waiting(0, 2, "host:1", torchrun.UNSET):
        time.sleep(0.3)
    (record,) = caplog.records
    assert "Process 0 of 2 waits at host:1 until all 2 have joined. If no torchrun" in record.getMessage()
    caplog.clear()
    with torchrun.log_while_waiting(0, 2, "host:1"):
        pass
    time.sleep(0.1)
    assert not caplog.records


@pytest.mark.slow
def test_variables_left_over_are_told_of_within_seconds():
    """A second process never comes: the first says what it waits for."""
    code = "from se_det.training.launch import launch; launch(print, device='cpu')"
    port = str(launch.free_port())
    values = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.environ.update({values!r}); {code}"], stderr=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in process.stderr if "waits at" in line)
        assert f"Process 0 of 2 waits at 127.0.0.1:{port}" in line and "unset RANK" in line
    finally:
        process.kill()
        process.communicate()
