"""SIGTERM and Ctrl-C: noted while steps are made, at once otherwise, passed on, and as before afterwards."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from se_det.data.images import read_image
from se_det.errors import Interrupted, Terminated
from se_det.training.preemption import EvaluationStopped, forward_signals, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_end_of_a_step(number: signal.Signals) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with stop_on_signals() as stop, stop.deferred():
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
    with pytest.raises(Interrupted, match="at once, as it came twice"), stop_on_signals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)  # a Ctrl-C to one of several processes may come as both, in any order
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_nothing_takes_a_signal_for_a_failure_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging swallows what its streams raise, and an image is bad when it cannot be decoded."""

    class Stream:
        def write(self, text: str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    logger = logging.Logger("told")
    logger.addHandler(logging.StreamHandler(Stream()))
    with pytest.raises(Terminated, match="before or after its steps"), stop_on_signals():
        logger.warning("x")

    Image.new("RGB", (4, 4)).save(tmp_path / "sound.png")
    monkeypatch.setattr("PIL.Image.Image.load", lambda self: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match=r"^SIGINT ended the run here\.$"), stop_on_signals("here."):
        read_image(tmp_path / "sound.png")


def test_what_fails_on_the_way_out_does_not_hide_the_signal() -> None:
    cleaned = []
    with pytest.raises(Terminated, match="before or after its steps"), stop_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # again, as schedulers do: it does not disturb the leaving
            cleaned.append("all")
            raise RuntimeError("of cleaning up")
    assert cleaned == ["all"]


def test_a_signal_that_was_swallowed_is_seen_at_the_next_step() -> None:
    with stop_on_signals() as stop:
        with suppress(BaseException):  # as Python does in a `__del__`
            os.kill(os.getpid(), signal.SIGTERM)
        with stop.deferred():
            assert stop.requested(1)
    with pytest.raises(Terminated, match="ended the run here"), stop_on_signals("here.") as stop:
        stop.signal = signal.SIGTERM
        raise EvaluationStopped


def test_outside_the_main_thread_nothing_is_caught() -> None:
    asked = []

    def run() -> None:
        with stop_on_signals() as stop, forward_signals([]):
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
    with forward_signals([gone.pid, child.pid]) as came:
        os.kill(os.getpid(), number)
        assert child.wait(timeout=30) == -signal.SIGTERM
    assert came == [number]
