"""SIGTERM and Ctrl-C: noted while steps are made, at once otherwise, passed on, and as before afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from se_det.errors import Interrupted, Terminated
from se_det.training.stopping import passed_on, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_end_of_a_step(number: signal.Signals) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with stop_on_signals() as stop, stop.awaited():
        assert not stop.requested(1)
        os.kill(os.getpid(), number)
        assert stop.requested(1) and stop.requested(7)
        os.kill(os.getpid(), signal.SIGTERM)  # of whoever started the processes: no news
        assert f"{number.name} ended the run after 7" in str(stop.error("after 7"))
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_without_steps_it_ends_the_run_at_once() -> None:
    with pytest.raises(Terminated, match="SIGTERM ended the run before or after its steps"), stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGINT ended the run before or after its steps"), stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
    assert (Terminated.exit_code, Interrupted.exit_code) == (143, 130)


def test_a_second_ctrl_c_does_not_wait() -> None:
    with pytest.raises(Interrupted, match="at once, as it came twice"), stop_on_signals() as stop, stop.awaited():
        os.kill(os.getpid(), signal.SIGTERM)  # a Ctrl-C to one of several processes may come as both, in any order
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_nothing_is_caught() -> None:
    asked = []

    def run() -> None:
        with stop_on_signals() as stop, passed_on([]):
            asked.append(stop.requested(1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert asked == [False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_to_the_processes_that_were_started(number: signal.Signals) -> None:
    child = subprocess.Popen(["sleep", "60"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    with passed_on([gone.pid, child.pid]) as came:
        os.kill(os.getpid(), number)
        assert child.wait(timeout=30) == -signal.SIGTERM
    assert came == [number]
