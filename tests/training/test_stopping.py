"""SIGTERM: noted, passed on, and as before afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

from se_det.training.stopping import passed_on, stop_on_termination


def test_sigterm_is_noted_and_only_inside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_termination() as stop:
        assert not stop.requested(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested(1) and stop.requested(7)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_is_caught() -> None:
    asked = []

    def run() -> None:
        with stop_on_termination() as stop, passed_on(signal.SIGTERM, []):
            asked.append(stop.requested(1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert asked == [False]


def test_sigterm_is_passed_on_to_the_processes_that_were_started() -> None:
    child = subprocess.Popen(["sleep", "60"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    with passed_on(signal.SIGTERM, [gone.pid, child.pid]):
        os.kill(os.getpid(), signal.SIGTERM)
        assert child.wait(timeout=30) == -signal.SIGTERM
